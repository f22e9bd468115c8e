"""Decode speed: against the memory bandwidth, a Python loop, and transformers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.decode import peer as decode_peer
from dendrite_jax.benchmarks.harness.counts import check_counts
from dendrite_jax.benchmarks.harness.shapes import (
    default_dtype,
    default_shape,
    random_model,
    step_bytes,
)
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import GREEDY, GenerateConfig, State
from dendrite_jax.kernels.blocks import BLOCK_SIZE
from dendrite_jax.models import Decoder
from dendrite_jax.serving.compilation import loop_options

BATCH_SIZES = (1, 8, 32)
REPEATS = 5


def run(
    shape: str | None = None,
    context: int = 1024,
    new_tokens: int = 64,
    batch_sizes: tuple[int, ...] = BATCH_SIZES,
) -> dict[str, Any]:
    """Greedy decode of unshared branches, `new_tokens` after `context` random ones each.

    Args:
      shape: a name in `shapes.SHAPES`; None takes the platform's default.
      context: tokens of each prompt.
      new_tokens: tokens that each branch then gets.
      batch_sizes: branches that decode together.
    """
    # First, while this process holds no device memory.
    peer = decode_peer.measure(shape, context, new_tokens, batch_sizes)
    shape = shape or default_shape()
    model = random_model(shape, default_dtype())
    bandwidth = harness.read_bandwidth()
    rows = [
        _measure(model, batch, context, new_tokens, bandwidth) | _peer_columns(peer, batch)
        for batch in batch_sizes
    ]
    for row in rows:
        if row["transformers_ms"] is not None:
            row["times_transformers"] = row["transformers_ms"] / row["while_loop_ms"]
    return {
        "benchmark": "decode",
        "environment": harness.environment(),
        "shape": shape,
        "dtype": jnp.dtype(model.dtype).name,
        "context": context,
        "new_tokens": new_tokens,
        "read_bytes_per_second": bandwidth,
        "transformers": peer and peer["environment"],
        "rows": rows,
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    title = (
        f"decode, {result['shape']}, {result['dtype']}, context {result['context']}: "
        f"reads {result['read_bytes_per_second'] / 1e9:,.0f} GB/s"
    )
    harness.print_table(title, result["rows"])


def _measure(
    model: Decoder, batch: int, context: int, new_tokens: int, bandwidth: float
) -> dict[str, Any]:
    prompt_blocks, new_blocks = -(-context // BLOCK_SIZE), -(-new_tokens // BLOCK_SIZE) + 1
    config = CacheConfig(
        num_blocks=batch * (prompt_blocks + new_blocks),
        num_slots=2 * batch,
        max_context=context + new_tokens,
    )
    state, first_seconds, roots = prompts(model, config, batch, context)
    state, stepped = _python_loop(model, state, roots, new_tokens)
    state, looped = while_loop_seconds(model, state, roots, new_tokens)
    kv.raise_errors(state.cache)
    read = step_bytes(model, context + new_tokens // 2, batch)
    return {
        "batch": batch,
        "tokens_per_second": batch / looped,
        "while_loop_ms": 1e3 * looped,
        "python_p50_ms": 1e3 * stepped.p50,
        "python_p99_ms": 1e3 * stepped.p99,
        "first_token_ms": 1e3 * first_seconds,
        "bytes_per_second": read / looped,
        "of_bandwidth": read / looped / bandwidth,
    }


def _peer_columns(peer: dict[str, Any] | None, batch: int) -> dict[str, float | None]:
    measured = peer["rows"].get(str(batch)) if peer else None
    return {
        "transformers_ms": measured and measured["token_ms"],
        "transformers_first_ms": measured and measured["first_token_ms"],
        "times_transformers": None,
    }


def prompts(
    model: Decoder, config: CacheConfig, batch: int, context: int
) -> tuple[State, float, jax.Array]:
    """A state with a branch for each random prompt, and the seconds to the first tokens."""
    state = jax.jit(engine.init, static_argnames="config")(model, config=config)
    state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), batch))
    draw = np.random.default_rng(0).integers(0, model.vocab_size, (batch, context))
    tokens, count = jnp.asarray(draw, jnp.int32), jnp.full(batch, context)

    @jax.jit(donate_argnums=1)
    def first_token(model: Decoder, state: State, ids: jax.Array) -> tuple[State, jax.Array]:
        state, stepped = engine.prefill(model, state, ids, tokens, count)
        return state, jnp.argmax(stepped.logits, axis=-1)

    seconds = []
    for _ in range(2):  # the first call compiles
        state = engine.free(state, ids)
        state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), batch))
        start = time.perf_counter()
        state, token = first_token(model, state, ids)
        token.block_until_ready()
        seconds.append(time.perf_counter() - start)
    return state, seconds[-1], ids


def _on_children(state: State, roots: jax.Array, use: Callable[[State, jax.Array], State]) -> State:
    """Runs `use` on a fresh child of each root, so that every run starts at the same context."""
    state, children = engine.fork(state, roots)
    return engine.free(use(state, children), children)


def _python_loop(
    model: Decoder, state: State, roots: jax.Array, new_tokens: int
) -> tuple[State, harness.Timing]:
    """Times of one jitted step with sampling, each waited for."""

    @jax.jit(donate_argnums=1, compiler_options=loop_options())
    def step(model: Decoder, state: State, ids: jax.Array) -> tuple[State, jax.Array]:
        logits = engine.next_logits(model, state, ids)
        chosen = engine.sample(logits, state.key[ids], state.cache.length[ids], GREEDY)
        state, _ = engine.advance(model, state, ids, chosen.token)
        return state, chosen.token

    seconds: list[float] = []

    def use(state: State, ids: jax.Array) -> State:
        for _ in range(new_tokens):
            start = time.perf_counter()
            state, token = step(model, state, ids)
            token.block_until_ready()
            seconds.append(time.perf_counter() - start)
        return state

    before, calls = state.cache.ledger.totals(), 3
    for _ in range(calls):
        state = _on_children(state, roots, use)
    _check_generated(before, state, roots, calls * new_tokens)
    return state, harness.Timing.of(seconds[new_tokens:])


def _check_generated(before: Mapping[str, int], state: State, roots: jax.Array, steps: int) -> None:
    """Raises CountError unless every branch got a token at each of so many steps."""
    check_counts(before, state.cache, steps=steps, generated=steps * len(roots))


def while_loop_seconds(
    model: Decoder, state: State, roots: jax.Array, new_tokens: int
) -> tuple[State, float]:
    """Median seconds of a token inside `engine.generate`.

    A call whose lanes are all idle runs the same program with no turn of its loop; its time is
    taken off.
    """
    config = GenerateConfig(new_tokens)

    @jax.jit(donate_argnums=1, compiler_options=loop_options())
    def generate(model: Decoder, state: State, ids: jax.Array) -> tuple[State, jax.Array]:
        state, out = engine.generate(model, state, ids, config, GREEDY)
        return state, out.tokens

    seconds: list[float] = []

    def use(state: State, ids: jax.Array) -> State:
        start = time.perf_counter()
        state, tokens = generate(model, state, ids)
        tokens.block_until_ready()
        seconds.append(time.perf_counter() - start)
        return state

    state = _on_children(state, roots, use)
    seconds.clear()
    before = state.cache.ledger.totals()
    for _ in range(REPEATS):
        state = _on_children(state, roots, use)
    _check_generated(before, state, roots, REPEATS * new_tokens)
    full = statistics.median(seconds)
    seconds.clear()
    before = state.cache.ledger.totals()
    for _ in range(REPEATS):
        state = use(state, jnp.full_like(roots, -1))
    check_counts(before, state.cache, steps=0, generated=0)
    return state, (full - statistics.median(seconds)) / new_tokens
