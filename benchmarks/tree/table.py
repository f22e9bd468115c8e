"""Search trees: rounds and complete trees, against a prefill of every branch and transformers."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from dendrite_jax import cache as kv
from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.harness.shapes import (
    default_dtype,
    default_shape,
    random_model,
    step_bytes,
)
from dendrite_jax.benchmarks.tree import bookkeeping as tree_bookkeeping
from dendrite_jax.benchmarks.tree import peer as tree_peer
from dendrite_jax.benchmarks.tree.peer import CopiedTree
from dendrite_jax.benchmarks.tree.programs import TreePrograms
from dendrite_jax.benchmarks.tree.reprefill import LevelCost, Reprefill
from dendrite_jax.benchmarks.tree.sizes import (
    CPU,
    H100,
    TreeSizes,
    round_seconds,
    tree_seconds,
)
from dendrite_jax.benchmarks.tree.workloads import (
    CompleteTree,
    Rounds,
    measure_rounds,
    measure_tree,
)
from dendrite_jax.models import Decoder


def run(shape: str | None = None, sizes: TreeSizes | None = None) -> dict[str, Any]:
    """Times both workloads, their peers and the bookkeeping.

    A peer's time is that of one batch of branches at each level of a tree, times the batches that
    the level takes; a round takes what the level of its size does. `reprefill` prefills every
    branch, `reprefill_parents` every expanded node, once for all its children. `transformers` fills
    its batches with children of many nodes, `transformers_one_node` expands a node at a time.

    Args:
      shape: a name in `shapes.SHAPES`; None takes the platform's default.
      sizes: of the workloads; None takes the platform's default.
    """
    # First, while this process holds no device memory.
    peer = tree_peer.measure(shape, sizes)
    shape = shape or default_shape()
    sizes = sizes or (H100 if jax.default_backend() == "gpu" else CPU)
    model = random_model(shape, default_dtype())
    # On a CPU a smaller array outgrows the caches too, and is read soon enough.
    bandwidth = harness.read_bandwidth(2048 if jax.default_backend() == "gpu" else 256)
    with ThreadPoolExecutor() as pool:
        compiling = pool.submit(TreePrograms.compile, model, sizes, sizes.program_lanes)
        peers = list(pool.map(partial(Reprefill.compile, model, sizes), sizes.prefixes))
        programs = compiling.result()
    rounds = {pair: measure_rounds(programs, *pair) for pair in sizes.rounds}
    trees = {prefix: measure_tree(programs, prefix) for prefix in sizes.prefixes}
    books = tree_bookkeeping.measure(model, sizes, rounds)
    copied = peer.trees if peer else dict.fromkeys(sizes.prefixes)
    reprefill = {each.prefix: each.measure() for each in peers}
    after_prompt = reprefill[sizes.prompt], copied[sizes.prompt]
    return {
        "benchmark": "tree",
        "environment": harness.environment(),
        "shape": shape,
        "dtype": jnp.dtype(model.dtype).name,
        "sizes": dataclasses.asdict(sizes),
        "read_bytes_per_second": bandwidth,
        "transformers": peer and peer.environment,
        "rounds": [
            _round_row(model, sizes, pair, rounds[pair], bandwidth, *after_prompt)
            for pair in sizes.rounds
        ],
        "trees": [
            _tree_row(sizes, prefix, trees[prefix], reprefill[prefix], copied[prefix])
            for prefix in sizes.prefixes
        ],
        "bookkeeping": books,
        "levels": [
            _level_row(sizes, prefix, level, trees[prefix], reprefill[prefix], copied[prefix])
            for prefix in sizes.prefixes
            for level in range(sizes.depth)
        ],
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    sizes = result["sizes"]
    where = f"{result['shape']}, {result['dtype']}"
    harness.print_table(
        f"rounds of {sizes['thought']} tokens after {sizes['prompt']}, {where}", result["rounds"]
    )
    harness.print_table(
        f"complete trees, depth {sizes['depth']}, branching {sizes['branching']}, {where}",
        result["trees"],
    )
    harness.print_table("bookkeeping of a token step", result["bookkeeping"])
    harness.print_table("batches of a level", result["levels"])


def _round_row(
    model: Decoder,
    sizes: TreeSizes,
    pair: tuple[int, int],
    rounds: Rounds,
    bandwidth: float,
    reprefill: list[LevelCost],
    copied: CopiedTree | None,
) -> dict[str, Any]:
    keep, width = pair
    lanes = keep * width
    # A round reads the weights and the prompt once a token, and each branch's new tokens so far.
    shared = step_bytes(model, sizes.prompt)
    own = lanes * sizes.thought / 2 * _token_bytes(model)
    ours = 1e3 * rounds.median
    by_prefill = round_seconds(lanes, [cost.of_branches() for cost in reprefill])
    return {
        "keep": keep,
        "width": width,
        "round_ms": ours,
        "token_ms": ours / sizes.thought,
        "floor_ms": 1e3 * sizes.thought * (shared + own) / bandwidth,
        "prefill_ms": 1e3 * rounds.prefill,
        "first_round_ms": 1e3 * rounds.first,
        "first_over_parts": rounds.first / (rounds.prefill + rounds.median),
        "reprefill_ms": 1e3 * by_prefill,
        "transformers_ms": copied and 1e3 * round_seconds(lanes, copied.levels),
        "slowest_ms": 1e3 * max(rounds.later),
    }


def _tree_row(
    sizes: TreeSizes,
    prefix: int,
    tree: CompleteTree,
    reprefill: list[LevelCost],
    copied: CopiedTree | None,
) -> dict[str, Any]:
    by_branch = tree_seconds(sizes, [cost.of_branches() for cost in reprefill])
    by_parent = tree_seconds(sizes, [cost.of_parents(sizes.branching) for cost in reprefill])
    by_copies = copied and copied.prefill + tree_seconds(sizes, copied.levels)
    # The first level's batch is the children of one node.
    expansions = sum(sizes.level_thoughts) // sizes.branching
    one_by_one = copied and copied.prefill + expansions * copied.levels[0].seconds
    return {
        "prefix": prefix,
        "thoughts": sum(sizes.level_thoughts),
        "seconds": tree.total,
        "prefill_seconds": tree.prefill,
        "reprefill_seconds": by_branch,
        "reprefill_parents_seconds": by_parent,
        "transformers_seconds": by_copies,
        "transformers_one_node_seconds": one_by_one,
        "times_reprefill": by_branch / tree.total,
        "times_reprefill_parents": by_parent / tree.total,
        "times_transformers": by_copies and by_copies / tree.total,
        "tokens_prefilled": tree.ledger["prefilled"],
        "tokens_generated": tree.ledger["generated"],
        "peak_blocks": tree.peak_blocks,
    }


def _level_row(
    sizes: TreeSizes,
    prefix: int,
    level: int,
    tree: CompleteTree,
    reprefill: list[LevelCost],
    copied: CopiedTree | None,
) -> dict[str, Any]:
    cost = reprefill[level]
    return {
        "prefix": prefix,
        "level": level + 1,
        "thoughts": sizes.level_thoughts[level],
        "ms": 1e3 * tree.levels[level],
        "reprefill_batch": cost.lanes,
        "reprefill_prefill_ms": 1e3 * cost.prefill,
        "reprefill_decode_ms": 1e3 * cost.decode,
        "transformers_batch": copied and copied.levels[level].lanes,
        "transformers_batch_ms": copied and 1e3 * copied.levels[level].seconds,
    }


def _token_bytes(model: Decoder) -> float:
    """Bytes of a token's keys and values in all layers."""
    return kv.block_bytes(model.kv_shape, dtype=model.dtype, block_size=1)
