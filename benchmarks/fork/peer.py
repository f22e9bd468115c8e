"""What a fork costs users of transformers: `copy.deepcopy` of a cache."""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

from dendrite_jax.benchmarks.harness.peer_process import answer, arguments, run_peer
from dendrite_jax.benchmarks.harness.shapes import SHAPES

REPEATS = 5


def copy_seconds(shape: str | None, contexts: tuple[int, ...]) -> dict[int, float | None]:
    """Seconds to copy a cache of each context; None where it doesn't fit or isn't installed."""
    measured = run_peer("fork.peer", shape, contexts) or {}
    return {context: measured.get(str(context)) for context in contexts}


def _run(shape: str | None, contexts: list[int]) -> dict[int, float | None]:
    import torch

    on_gpu = torch.cuda.is_available()
    shape = shape or ("llama-3-8b" if on_gpu else "small")
    return {context: _copy_once(shape, context, on_gpu) for context in contexts}


def _copy_once(shape: str, context: int, on_gpu: bool) -> float | None:
    import torch

    seconds = []
    try:
        cache = _filled_cache(shape, context, on_gpu)
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            duplicate = copy.deepcopy(cache)
            if on_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
            del duplicate
    except torch.OutOfMemoryError:
        return None
    return statistics.median(seconds[1:])


def _filled_cache(shape: str, context: int, on_gpu: bool) -> Any:
    import torch
    from transformers import DynamicCache

    config = SHAPES[shape]
    heads = config.layers[0].attention  # all layers are alike
    size = (1, heads.kv_heads, context, heads.head_dim)
    cache = DynamicCache()
    for layer in range(config.num_layers):
        piece = torch.ones(
            size,
            dtype=torch.bfloat16 if on_gpu else torch.float32,
            device="cuda" if on_gpu else "cpu",
        )
        cache.update(piece, piece.clone(), layer)
    return cache


if __name__ == "__main__":
    answer(_run(*arguments()))
