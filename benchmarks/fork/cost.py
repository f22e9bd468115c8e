"""What a fork costs: against an empty call, and against copying the cache."""

from __future__ import annotations

import time
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.fork import peer as fork_peer
from dendrite_jax.benchmarks.harness.counts import check_counts
from dendrite_jax.benchmarks.harness.shapes import default_dtype, default_shape, random_model
from dendrite_jax.cache import CacheConfig, LayerGroup
from dendrite_jax.engine import State
from dendrite_jax.kernels.blocks import BLOCK_SIZE
from dendrite_jax.models import Decoder

CONTEXTS = (1024, 4096, 16384, 65536, 131072)
CHILDREN = (1, 8, 64)
REPEATS = 200
"""Enough for a steady median: the host's own dispatch is most of what is timed."""
FILL = 1024
"""Tokens appended at once when a prefix is made."""


def run(contexts: tuple[int, ...] = CONTEXTS, shape: str | None = None) -> dict[str, Any]:
    """Forks a branch of each length into each number of children.

    The prefix is made of random token ids; its keys and values are not computed, since a fork
    reads none of them.
    """
    # First, while this process holds no device memory.
    peer = fork_peer.copy_seconds(shape, contexts)
    shape = shape or default_shape()
    model = random_model(shape, default_dtype())
    floor = harness.empty_call()
    rows = [row for context in contexts for row in _context_rows(model, context, floor.p50, peer)]
    return {
        "benchmark": "fork",
        "environment": harness.environment(),
        "shape": shape,
        "empty_call_us": 1e6 * floor.p50,
        "rows": rows,
        "summary": _summary(rows),
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    title = f"fork, {result['shape']}: an empty call takes {result['empty_call_us']:.1f} µs"
    harness.print_table(title, result["rows"])
    harness.print_table("summary", [result["summary"]])


def _context_rows(
    model: Decoder, context: int, floor: float, peer: dict[int, float | None]
) -> list[dict[str, Any]]:
    config = CacheConfig(
        num_blocks=context // BLOCK_SIZE + 2 * max(CHILDREN) + 2,
        num_slots=max(CHILDREN) + 1,
        max_context=context + 32,
    )
    state, root = _prefix(model, config, context)
    copied = _copy_seconds(state, context)
    deep_copied = peer[context]
    fork = jax.jit(engine.fork, donate_argnums=0)
    free = jax.jit(engine.free, donate_argnums=0)
    state, diverged = _divergence(model, state, root)
    rows = []
    for children in CHILDREN:
        parents = jnp.full(children, root, jnp.int32)
        seconds = []
        before, calls = state.cache.ledger.totals(), REPEATS + 3
        for _ in range(calls):
            start = time.perf_counter()
            state, ids = jax.block_until_ready(fork(state, parents))
            seconds.append(time.perf_counter() - start)
            state = free(state, ids)
        check_counts(before, state.cache, forks=calls * children)
        time_fork = float(np.median(seconds[3:]))
        rows.append(
            {
                "context": context,
                "children": children,
                "fork_us": 1e6 * time_fork,
                "per_child_us": 1e6 * time_fork / children,
                "ratio_to_empty": time_fork / floor,
                "bytes_per_child": _row_bytes(state),
                "bytes_after_divergence": _row_bytes(state) + _block_bytes(model),
                "prefix_bytes": context // BLOCK_SIZE * _block_bytes(model),
                "first_divergent_token_us": 1e6 * diverged.first,
                "next_token_us": 1e6 * diverged.next,
                "copy_per_child_us": 1e6 * copied,
                "transformers_copy_per_child_us": deep_copied and 1e6 * deep_copied,
            }
        )
    kv.raise_errors(state.cache)
    return rows


def _prefix(model: Decoder, config: CacheConfig, context: int) -> tuple[State, int]:
    """A state that holds one branch of `context` tokens."""
    append = jax.jit(kv.append, donate_argnums=0)
    state = jax.jit(partial(engine.init, allow_longer_context=True), static_argnames="config")(
        model, config=config
    )
    state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), 1))
    tokens = jnp.zeros((1, FILL), jnp.int32)
    cache = state.cache
    for done in range(0, context, FILL):
        cache, _ = append(cache, ids, tokens, jnp.array([min(FILL, context - done)]))
    kv.raise_errors(cache)
    return state.replace(cache=cache), int(ids[0])


class _Divergence(NamedTuple):
    """Seconds of a single child's tokens."""

    first: float  # from the call of fork to the end of the child's first token
    next: float  # the token after it


def _divergence(model: Decoder, state: State, root: int) -> tuple[State, _Divergence]:
    """Forks one child and gives it two tokens, the first of which copies a block on write."""
    fork = jax.jit(engine.fork, donate_argnums=0)
    free = jax.jit(engine.free, donate_argnums=0)
    advance = jax.jit(engine.advance, donate_argnums=1)
    parent, token = jnp.array([root]), jnp.array([1])
    first, following = [], []
    for _ in range(8):
        start = time.perf_counter()
        state, ids = fork(state, parent)
        state, _ = jax.block_until_ready(advance(model, state, ids, token))
        first.append(time.perf_counter() - start)
        start = time.perf_counter()
        state, _ = jax.block_until_ready(advance(model, state, ids, token))
        following.append(time.perf_counter() - start)
        state = free(state, ids)
    return state, _Divergence(float(np.median(first[2:])), float(np.median(following[2:])))


def _copy_seconds(state: State, context: int) -> float:
    """Copying the keys and values of the prefix once, as one branch of a dense cache would."""
    blocks = context // BLOCK_SIZE

    @jax.jit
    def duplicate(groups: tuple[LayerGroup, ...]) -> list[jax.Array]:
        return [array[:, :blocks] * 1 for array in jax.tree.leaves(groups)]

    groups = state.cache.pool.groups
    return harness.time_calls(lambda: duplicate(groups), 5, warm_up=1).p50


def _row_bytes(state: State) -> int:
    """Bytes of one slot: its table row and scalars, its last hidden state and its key."""
    cache = state.cache
    per_slot = (cache.table, cache.length, cache.alive, cache.error)
    own = (state.hidden, state.key, state.children, state.stale)
    return sum(array.nbytes // cache.num_slots for array in per_slot + own)


def _block_bytes(model: Decoder) -> int:
    return kv.block_bytes(model.kv_shape, dtype=model.dtype)


def _summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    """The ratios that the targets speak of."""
    by_size = {(row["context"], row["children"]): row["fork_us"] for row in rows}
    contexts = sorted({context for context, _ in by_size})
    fewest, most = min(CHILDREN), max(CHILDREN)
    worst = max(row["bytes_after_divergence"] / row["prefix_bytes"] for row in rows)
    return {
        "longest_over_shortest_context": by_size[contexts[-1], fewest]
        / by_size[contexts[0], fewest],
        "most_over_fewest_children": max(by_size[c, most] / by_size[c, fewest] for c in contexts),
        "worst_bytes_over_prefix": worst,
    }
