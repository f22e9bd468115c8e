"""What a decode step costs on a CPU where branches could hold much and hold little.

Run as `python -m dendrite_jax.benchmarks.decode.max_context`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import engine
from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.harness.shapes import random_model
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import State
from dendrite_jax.kernels.tree_attention import reference, xla
from dendrite_jax.models import Decoder

MAX_CONTEXTS = (512, 8192, 131072)
HELD = 37
TURNS = 2, 66
REPEATS = 9


def run(
    model: Decoder | None = None, lanes: int = 1, max_contexts: tuple[int, ...] = MAX_CONTEXTS
) -> dict[str, Any]:
    """A decode step of branches that hold HELD tokens each, nothing shared.

    Args:
      model: the decoder; None for the small shape.
      lanes: branches that decode together.
      max_contexts: tokens that a branch could hold.

    Returns:
      The environment, and for each of `max_contexts` the CPU milliseconds of a step, of one layer's
      attention, and of the same by its specification, which reads the whole table.
    """
    model = model or random_model("small", jnp.float32)
    rows = []
    for max_context in max_contexts:
        state, ids = _held(model, lanes, max_context)
        attention = partial(_attention_ms, model, state, ids)
        rows.append(
            {
                "max_context": max_context,
                "step_ms": _step_ms(model, state, ids),
                "attention_ms": attention(xla.tree_attention),
                "specification_ms": attention(reference.tree_attention),
            }
        )
    for row in rows:
        row["times_first"] = row["step_ms"] / rows[0]["step_ms"]
    return {
        "benchmark": "max_context",
        "environment": harness.environment(),
        "held": HELD,
        "lanes": lanes,
        "rows": rows,
    }


def _held(model: Decoder, lanes: int, max_context: int) -> tuple[State, Array]:
    """A state in which each lane's branch holds HELD tokens."""
    state = engine.init(
        model, CacheConfig(8 * lanes, lanes, max_context), allow_longer_context=True
    )
    state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), lanes))
    tokens = jnp.arange(lanes * HELD).reshape(lanes, HELD) % model.vocab_size
    state, _ = engine.prefill(model, state, ids, tokens, jnp.full(lanes, HELD))
    return state, ids


def _step_ms(model: Decoder, state: State, ids: Array) -> float:
    """CPU milliseconds of a decode step."""

    @jax.jit
    def steps(turns: int, model: Decoder, state: State) -> State:
        tokens = jnp.zeros_like(ids)
        return jax.lax.fori_loop(
            0, turns, lambda _, state: engine.step(model, state, ids, tokens)[0], state
        )

    return _cpu_ms_per_turn(lambda turns: steps(turns, model, state))


def _attention_ms(model: Decoder, state: State, ids: Array, attention: Callable[..., Any]) -> float:
    """CPU milliseconds of one layer's attention."""
    cache = state.cache
    heads = model.config.layers[0].attention
    q = jnp.ones((ids.shape[0], heads.heads, heads.head_dim), model.dtype)

    @jax.jit
    def attend(turns: int, q: Array, k: Array, v: Array, table: Array, length: Array) -> Array:
        def turn(_: Array, q: Array) -> Array:
            return attention(q, k, v, 0, table, length, scale=1.0)[0]

        return jax.lax.fori_loop(0, turns, turn, q)

    stored = cache.pool.groups[0].arrays
    arrays = stored["k"], stored["v"], cache.table[ids], cache.length[ids]
    return _cpu_ms_per_turn(lambda turns: attend(turns, q, *arrays))


def _cpu_ms_per_turn(call: Callable[[int], Any]) -> float:
    """CPU milliseconds of a turn: few and many of them, their difference taken."""

    def seconds(turns: int) -> float:
        start = time.process_time()
        jax.block_until_ready(call(turns))
        return time.process_time() - start

    few, many = TURNS
    seconds(few)
    samples = [(seconds(many) - seconds(few)) / (many - few) for _ in range(REPEATS)]
    return 1e3 * statistics.median(samples)


if __name__ == "__main__":
    result = run()
    harness.print_table(f"decode, {HELD} tokens held, one lane", result["rows"])
