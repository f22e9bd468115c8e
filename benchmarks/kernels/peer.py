"""FlashInfer's decode attention on the same trees, in a process of its own.

Branches share physical pages of 16 tokens, as in our pool. Three of its modes are timed: plain
decode, decode on the tensor cores, and the multi-level cascade, with its FA2 kernels or its own
choice. Times are of CUDA graphs over rotated layers; its planning on the host is timed apart.
"""

from __future__ import annotations

import re
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dendrite_jax.benchmarks.harness.peer_process import answer, arguments, run_peer
from dendrite_jax.benchmarks.kernels.tree import HEAD_DIM, num_layers
from dendrite_jax.benchmarks.kernels.trees import TREES, Tree
from dendrite_jax.kernels.blocks import BLOCK_SIZE


def measure(heads: list[tuple[int, int]], own_choice: bool) -> dict[str, Any] | None:
    """Times every tree at every (query heads, kv heads); None if FlashInfer isn't installed.

    Args:
      heads: the head counts.
      own_choice: also the cascade with the kernels that FlashInfer picks, which take two minutes
        to compile.

    Returns:
      {"version", "rows": [{"tree", "heads", mode: {"microseconds", "plan_microseconds"} or
      {"error"}}]}.
    """
    return run_peer("kernels.peer", heads, own_choice, needs=("torch", "flashinfer"))


@dataclass
class Level:
    """One level of a cascade: consecutive lanes that share a list of pages."""

    lanes: list[int]  # first lane of each group, and the number of lanes at the end
    pages: list[list[int]]


def cascade_levels(table: np.ndarray, held: np.ndarray) -> list[Level]:
    """Levels of shared pages for lanes in depth-first order, the last one each lane's own.

    Args:
      table: i32[lanes, max_blocks], in an order in which lanes that share pages are neighbours.
      held: i32[lanes], blocks of each lane.

    A level is the pages that a group of lanes shares beyond those of the level above. Only as many
    levels are made as every lane has.
    """
    groups = [(0, len(table), 0)]
    levels: list[Level] = []
    while True:
        spans = []
        for first, end, column in groups:
            shared = column
            least = held[first:end].min()
            while shared < least and (table[first:end, shared] == table[first, shared]).all():
                shared += 1
            spans.append((first, end, column, shared))
        if any(end - first == 1 or column == shared for first, end, column, shared in spans):
            break
        levels.append(
            Level(
                [first for first, *_ in spans] + [len(table)],
                [table[first, column:shared].tolist() for first, _, column, shared in spans],
            )
        )
        groups = []
        for first, end, _, shared in spans:
            heads = [
                lane
                for lane in range(first, end)
                if lane == first or table[lane, shared] != table[lane - 1, shared]
            ]
            bounds = [*heads, end]
            groups += [(bounds[i], bounds[i + 1], shared) for i in range(len(heads))]
    begin = np.zeros(len(table), int)
    for first, end, column in groups:
        begin[first:end] = column
    own = [table[lane, begin[lane] : held[lane]].tolist() for lane in range(len(table))]
    return [*levels, Level(list(range(len(table) + 1)), own)]


def _wrappers(tree: Tree, heads: int, kv_heads: int, own_choice: bool) -> Iterator[Any]:
    """(mode, wrapper, plan) of each mode, with lanes in depth-first order."""
    import flashinfer
    import torch

    workspace = torch.zeros(512 << 20, dtype=torch.uint8, device="cuda")
    held = -(-tree.length // BLOCK_SIZE)
    order = np.lexsort(tree.table.T[::-1])
    table, held, length = tree.table[order], held[order], tree.length[order]
    last = torch.tensor(length - (held - 1) * BLOCK_SIZE, dtype=torch.int32)
    options = {"q_data_type": torch.bfloat16, "kv_data_type": torch.bfloat16}

    def indptr(lists: list[list[int]]) -> Any:
        return torch.tensor(np.cumsum([0, *map(len, lists)]), dtype=torch.int32)

    def pages(lists: list[list[int]]) -> Any:
        return torch.tensor([page for pages in lists for page in pages], dtype=torch.int32)

    rows = [table[lane, : held[lane]].tolist() for lane in range(len(table))]
    for mode, tensor_cores in (("decode", False), ("tensor-core decode", True)):
        wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
            workspace, "NHD", use_tensor_cores=tensor_cores
        )
        yield (
            mode,
            wrapper,
            lambda wrapper=wrapper: wrapper.plan(
                indptr(rows),
                pages(rows).cuda(),
                last,
                heads,
                kv_heads,
                HEAD_DIM,
                BLOCK_SIZE,
                **options,
            ),
        )
    levels = cascade_levels(table, held)
    if len(levels) == 1:
        return
    lasts = [
        torch.full((len(level.pages),), BLOCK_SIZE, dtype=torch.int32) for level in levels[:-1]
    ]
    plan_arguments = (
        [torch.tensor(level.lanes, dtype=torch.int32).cuda() for level in levels],
        [indptr(level.pages).cuda() for level in levels],
        [pages(level.pages).cuda() for level in levels],
        [part.cuda() for part in [*lasts, last]],
    )
    for mode in ("cascade FA2", "cascade, own choice")[: 2 if own_choice else 1]:
        wrapper = flashinfer.MultiLevelCascadeAttentionWrapper(len(levels), workspace, "NHD")
        if mode == "cascade FA2":
            wrapper._batch_prefill_wrappers = [
                flashinfer.BatchPrefillWithPagedKVCacheWrapper(workspace, "NHD", backend="fa2")
                for _ in levels
            ]
        yield (
            mode,
            wrapper,
            lambda wrapper=wrapper: wrapper.plan(
                *plan_arguments, heads, kv_heads, HEAD_DIM, BLOCK_SIZE, **options
            ),
        )


def _brief(error: Exception) -> str:
    """The beginning of a message, without the folders of the files that it names."""
    return re.sub(r"(/[^\s/]+)+/", "", str(error))[:200]


def _microseconds(call: Callable[[], Any], repeats: int) -> float:
    """Median device time of a call, by events."""
    import torch

    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times)


def _time(wrapper: Any, plan: Callable[[], Any], q: Any, caches: list[Any]) -> dict[str, float]:
    """Microseconds a layer in a graph over all caches, and of one plan on the host."""
    import torch

    plan()
    torch.cuda.synchronize()
    plans = []
    for _ in range(10):
        start = time.perf_counter()
        plan()
        torch.cuda.synchronize()
        plans.append(time.perf_counter() - start)

    def layers() -> None:
        for cache in caches:
            wrapper.run(q, cache)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        layers()
        layers()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        layers()
    for _ in range(3):
        graph.replay()
    return {
        "microseconds": _microseconds(graph.replay, 30) / len(caches),
        "plan_microseconds": statistics.median(plans) * 1e6,
    }


def _run(heads: list[list[int]], own_choice: bool) -> dict[str, Any]:
    """What `measure` gives, in the process that holds the GPU."""
    import flashinfer
    import torch

    rows = []
    for num_heads, kv_heads in heads:
        for name, make in TREES.items():
            tree = make()
            count = num_layers(tree, kv_heads)
            shape = (tree.num_blocks, 2, BLOCK_SIZE, kv_heads, HEAD_DIM)
            caches = [torch.randn(shape, dtype=torch.bfloat16, device="cuda") for _ in range(count)]
            q = torch.randn(
                len(tree.length), num_heads, HEAD_DIM, dtype=torch.bfloat16, device="cuda"
            )
            row: dict[str, Any] = {"tree": name, "heads": f"{num_heads}/{kv_heads}"}
            outputs = {}
            for mode, wrapper, plan in _wrappers(tree, num_heads, kv_heads, own_choice):
                try:
                    row[mode] = _time(wrapper, plan, q, caches)
                    outputs[mode] = wrapper.run(q, caches[0]).float()
                except Exception as error:
                    row[mode] = {"error": f"{type(error).__name__}: {_brief(error)}"}
            for mode, output in outputs.items():
                first = next(iter(outputs.values()))
                row[mode]["differs"] = float((output - first).norm() / first.norm())
            rows.append(row)
            del caches
            torch.cuda.empty_cache()
    return {"version": flashinfer.__version__, "torch": torch.__version__, "rows": rows}


if __name__ == "__main__":
    answer(_run(*arguments()))
