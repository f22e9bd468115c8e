"""Prefill of one prompt, and decode of the branches that fork from it."""

from __future__ import annotations

import statistics
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.decode import loop as decode
from dendrite_jax.benchmarks.harness.counts import check_counts
from dendrite_jax.benchmarks.harness.shapes import (
    default_dtype,
    default_shape,
    random_model,
    step_bytes,
)
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import State
from dendrite_jax.kernels.blocks import BLOCK_SIZE
from dendrite_jax.models import Decoder

REPEATS = 7
"""Timed prefills, the first of which compiles."""


def run(
    shape: str | None = None,
    context: int | None = None,
    new_tokens: int = 64,
    branches: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """Times a prompt, then greedy decode of several branches that share it, and of prompts apart.

    Args:
      shape: a name in `shapes.SHAPES`; None takes the platform's default.
      context: tokens of the prompt, a multiple of the block size; None takes 4096 on a GPU and
        256 elsewhere.
      new_tokens: tokens that each branch then gets.
      branches: numbers of branches; None takes 1, 16, 64 and 256 on a GPU and 1, 16 elsewhere.
    """
    on_gpu = jax.default_backend() == "gpu"
    context = context or (4096 if on_gpu else 256)
    branches = branches or ((1, 16, 64, 256) if on_gpu else (1, 16))
    shape = shape or default_shape()
    model = random_model(shape, default_dtype())
    most = max(branches)
    config = CacheConfig(
        num_blocks=-(-context // BLOCK_SIZE) + (2 * most + 1) * (-(-new_tokens // BLOCK_SIZE) + 1),
        num_slots=2 * most + 1,
        max_context=context + new_tokens,
    )
    state = jax.jit(engine.init, static_argnames="config")(model, config=config)
    state, root, prefill = _prompt(model, state, context)
    rows = []
    for count in branches:
        state, row = _branches(model, state, root, count, new_tokens)
        rows.append(row | {"context": context, "shared": True})
    kv.raise_errors(state.cache)
    del state
    rows.append(_unshared(model, 32 if on_gpu else 4, context // 4, new_tokens))
    return {
        "benchmark": "branches",
        "environment": harness.environment(),
        "shape": shape,
        "dtype": jnp.dtype(model.dtype).name,
        "new_tokens": new_tokens,
        "prefill_tokens": context,
        "prefill_ms": 1e3 * prefill,
        "rows": rows,
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    title = (
        f"decode of branches, {result['shape']}, {result['dtype']}; prefill of "
        f"{result['prefill_tokens']} tokens {result['prefill_ms']:.1f} ms"
    )
    harness.print_table(title, result["rows"])


def _prompt(model: Decoder, state: State, context: int) -> tuple[State, jax.Array, float]:
    """A branch with a random prompt, and the median seconds to its first token."""
    draw = np.random.default_rng(0).integers(0, model.vocab_size, (1, context))
    tokens = jnp.asarray(draw, jnp.int32)

    @partial(jax.jit, donate_argnums=1)
    def first_token(model: Decoder, state: State, ids: jax.Array) -> tuple[State, jax.Array]:
        state, stepped = engine.prefill(model, state, ids, tokens, jnp.array([context]))
        return state, jnp.argmax(stepped.logits, axis=-1)

    seconds = []
    root = jnp.array([-1])
    before = state.cache.ledger.totals()
    for _ in range(REPEATS):
        state = engine.free(state, root)
        state, root = engine.open_branches(state, jax.random.split(jax.random.key(0), 1))
        root.block_until_ready()
        start = time.perf_counter()
        state, token = first_token(model, state, root)
        token.block_until_ready()
        seconds.append(time.perf_counter() - start)
    check_counts(before, state.cache, prefilled=REPEATS * context)
    return state, root, statistics.median(seconds[2:])  # the first compiles, the second warms up


def _branches(
    model: Decoder, state: State, root: jax.Array, count: int, new_tokens: int
) -> tuple[State, dict[str, Any]]:
    """Decode of `count` branches that share all of the root's blocks."""
    state, children = engine.fork(state, jnp.repeat(root, count))
    state, seconds = decode.while_loop_seconds(model, state, children, new_tokens)
    return engine.free(state, children), _row(model, count, seconds)


def _unshared(model: Decoder, count: int, context: int, new_tokens: int) -> dict[str, Any]:
    """Decode of branches with a prompt each."""
    per_branch = -(-(context + new_tokens) // BLOCK_SIZE) + 1
    config = CacheConfig(count * per_branch, 2 * count, context + new_tokens)
    state, _, roots = decode.prompts(model, config, count, context)
    state, seconds = decode.while_loop_seconds(model, state, roots, new_tokens)
    kv.raise_errors(state.cache)
    return _row(model, count, seconds) | {"context": context, "shared": False}


def _row(model: Decoder, count: int, seconds: float) -> dict[str, Any]:
    """What the table shows of one timing."""
    weights = step_bytes(model, 0)
    return {
        "branches": count,
        "ms_per_step": 1e3 * seconds,
        "tokens_per_second": count / seconds,
        "weight_bytes_per_second": weights / seconds,
    }
