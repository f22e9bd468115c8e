"""The attention kernel of a decode step, against the bytes it must read and against its peers."""

from __future__ import annotations

from typing import Any

import jax

from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.harness.timing import READ_BANDWIDTH
from dendrite_jax.benchmarks.kernels import peer as kernels_peer
from dendrite_jax.benchmarks.kernels import tree as kernel_tree

HEADS = [(32, 8), (32, 32), (16, 1)]
"""Query and kv heads: groups of four, none, and one kv head for all."""


class NoGpuError(RuntimeError):
    """The benchmark needs a GPU, since the kernels that it times run on nothing else."""


def run(heads: list[tuple[int, int]] | None = None, own_choice: bool = False) -> dict[str, Any]:
    """Times tree attention on every tree, with FlashInfer and jax's paged attention beside it.

    The cache is cold: launches rotate over the layers of a pool several times its size.

    Args:
      heads: (query heads, kv heads) pairs; None takes HEADS.
      own_choice: times FlashInfer's cascade with the kernels of its own choice too.

    Raises:
      NoGpuError: the default backend is not a GPU.
    """
    heads = heads or HEADS
    # First, while this process holds no device memory.
    peer = kernels_peer.measure(heads, own_choice)
    if jax.default_backend() != "gpu":
        raise NoGpuError(f"the kernels run on a GPU; this is {jax.default_backend()}")
    rows = [row for pair in heads for row in kernel_tree.measure(*pair)]
    peers = {(row["tree"], row["heads"]): row for row in peer["rows"]} if peer else {}
    return {
        "benchmark": "kernels",
        "environment": harness.environment(),
        "read_bytes_per_second": READ_BANDWIDTH,
        "flashinfer": peer and {"version": peer["version"], "torch": peer["torch"]},
        "not_measured": [] if peer else ["FlashInfer: not installed"],
        "rows": [row | _best(peers.get((row["tree"], row["heads"])), row["us"]) for row in rows],
    }


def _best(peer: dict[str, Any] | None, us: float) -> dict[str, Any]:
    """The fastest of FlashInfer's modes, how often we are as fast, and all of its figures."""
    modes = {mode: found for mode, found in (peer or {}).items() if isinstance(found, dict)}
    timed = {mode: found for mode, found in modes.items() if "microseconds" in found}
    if not timed:
        return {"flashinfer_us": None, "flashinfer_mode": None, "times": None, "modes": modes}
    best = min(timed, key=lambda mode: timed[mode]["microseconds"])
    return {
        "flashinfer_us": timed[best]["microseconds"],
        "flashinfer_mode": best,
        "times": timed[best]["microseconds"] / us,
        "modes": modes,
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    columns = {
        "tree": "tree",
        "heads": "heads",
        "us": "µs",
        "floor_us": "floor",
        "of_bandwidth": "of bandwidth",
        "flashinfer_us": "FlashInfer",
        "flashinfer_mode": "its mode",
        "times": "times",
        "jax_us": "jax paged",
        "plan_us": "plan",
    }
    rows = [{title: row[key] for key, title in columns.items()} for row in result["rows"]]
    harness.print_table(f"attention of a layer on {result['environment']['device']}, µs", rows)
    for missing in result["not_measured"]:
        print(f"not measured: {missing}")
