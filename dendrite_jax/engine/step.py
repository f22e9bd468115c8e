"""Running tokens through the model: prefill and decode steps."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax.engine.constraint import accept_tokens
from dendrite_jax.engine.state import Model, Planner, State

PREFILL_CHUNK = 512
"""Tokens a lane that prefill runs through the model at once; on a GPU more, if lanes are few."""
GPU_CHUNK_TOKENS = 4096
"""Tokens of all lanes together that fill a GPU's matrix products."""


class Stepped(NamedTuple):
    """What a step leaves for the caller."""

    logits: Array  # f32[lanes, vocab], of the token after the last one; arbitrary where not ok
    hidden: Array  # [lanes, hidden], after the final norm, of the last token
    ok: Array  # bool[lanes], the lane took its tokens


def step(model: Model, state: State, branch_ids: Array, tokens: Array) -> tuple[State, Stepped]:
    """Appends one token to each branch.

    Args:
      model: the model.
      state: the engine state; donate it under jit.
      branch_ids: i32[lanes], each at most once; negative for an idle lane.
      tokens: i32[lanes].

    Returns:
      The state, and the logits of each branch's next token.
    """
    state, ok = advance(model, state, branch_ids, tokens)
    hidden = state.hidden[jnp.maximum(branch_ids, 0)]
    return state, Stepped(model.unembed(hidden), hidden, ok)


def advance(model: Model, state: State, branch_ids: Array, tokens: Array) -> tuple[State, Array]:
    """`step` without the logits, for loops that take them from `next_logits`; state and ok."""
    count = jnp.ones_like(tokens)
    state, _, ok = append_tokens(model, state, branch_ids, tokens[:, None], count, "generated")
    return state, ok


def next_logits(model: Model, state: State, branch_ids: Array) -> Array:
    """Logits f32[lanes, vocab] of each branch's next token, from its last hidden state."""
    return model.unembed(state.hidden[jnp.maximum(branch_ids, 0)])


def prefill(
    model: Model,
    state: State,
    branch_ids: Array,
    tokens: Array,
    count: Array,
    *,
    chunk: int | None = None,
) -> tuple[State, Stepped]:
    """Appends several tokens to each branch, at most `chunk` at a time.

    Args:
      model: the model.
      state: the engine state; donate it under jit.
      branch_ids: i32[lanes], each at most once; negative for an idle lane.
      tokens: i32[lanes, length]; pad to a few lengths (`length_bucket`), each is one trace.
      count: i32[lanes], how many of a lane's tokens are real; at least 1 in a lane that is used.
      chunk: bounds what is held at once; None takes PREFILL_CHUNK, or on a GPU what brings all
        lanes together to GPU_CHUNK_TOKENS if that is more.

    Returns:
      The state, and the logits of the token after each branch's last one.
    """
    if chunk is None:
        chunk = PREFILL_CHUNK
        if jax.default_backend() == "gpu":
            chunk = max(chunk, GPU_CHUNK_TOKENS // tokens.shape[0])
    state, ok = _prefill_chunks(model, state, branch_ids, tokens, count, chunk)
    hidden = state.hidden[jnp.maximum(branch_ids, 0)]
    return state, Stepped(model.unembed(hidden), hidden, ok)


def score_tokens(
    model: Model, state: State, branch_ids: Array, tokens: Array, count: Array
) -> tuple[State, Array, Array]:
    """Appends several tokens to each branch and gives the logits after every one of them.

    Takes what `prefill` takes, in one chunk. Returns the state, f32[lanes, length, vocab] and the
    bool[lanes] of lanes that took their tokens.
    """
    state, hidden, ok = append_tokens(model, state, branch_ids, tokens, count, "scored")
    return state, model.unembed(hidden), ok


def length_bucket(length: int, smallest: int = 16) -> int:
    """The padded length for `length` tokens: a power of two, or a multiple of PREFILL_CHUNK."""
    if length > PREFILL_CHUNK:
        return -(-length // PREFILL_CHUNK) * PREFILL_CHUNK
    return max(smallest, 1 << (length - 1).bit_length())


def _prefill_chunks(
    model: Model, state: State, branch_ids: Array, tokens: Array, count: Array, chunk: int
) -> tuple[State, Array]:
    lanes, length = tokens.shape
    if length <= chunk:
        state, _, ok = append_tokens(model, state, branch_ids, tokens, count, "prefilled")
        return state, ok
    num_chunks = -(-length // chunk)
    chunk = -(-length // num_chunks)
    padded = jnp.pad(tokens, ((0, 0), (0, num_chunks * chunk - length)))
    pieces = jnp.moveaxis(padded.reshape(lanes, num_chunks, chunk), 1, 0)

    def body(
        carry: tuple[State, Array], piece: tuple[Array, Array]
    ) -> tuple[tuple[State, Array], None]:
        (state, ok), (index, tokens) = carry, piece
        here = jnp.clip(count - index * chunk, 0, chunk)
        here = jnp.where(count > length, count, here)  # for `append` to refuse, not the padding
        ids = jnp.where(ok, branch_ids, -1)
        state, _, taken = append_tokens(model, state, ids, tokens, here, "prefilled")
        return (state, ok & (taken | (here == 0))), None

    start = (state, jnp.ones(lanes, bool))
    (state, ok), _ = jax.lax.scan(body, start, (jnp.arange(num_chunks), pieces))
    return state, ok & (count > 0)


def append_tokens(
    model: Model, state: State, branch_ids: Array, tokens: Array, count: Array, counter: str
) -> tuple[State, Array, Array]:
    """Appends tokens in one forward pass; the other functions here are made of it.

    Args:
      model: the model.
      state: the engine state; donate it under jit.
      branch_ids: i32[lanes], each at most once; negative for an idle lane.
      tokens: i32[lanes, length].
      count: i32[lanes], how many of a lane's tokens are real.
      counter: what the ledger counts them as.

    Returns:
      The state, the hidden state [lanes, length, hidden] of each token, and the bool[lanes] of
      lanes that took theirs. One that meets an edge unknown to its `LazyTable` takes none.
    """
    # With all lanes idle nothing is run: under `vmap`, a loop that is done idles with the others.
    runs = jnp.any(branch_ids >= 0)
    constraint = state.constraint
    if constraint is not None:
        constraint, grammar_state, missed = accept_tokens(constraint, branch_ids, tokens, count)
        branch_ids = jnp.where(missed, -1, branch_ids)
    cache, appended = kv.append(state.cache, branch_ids, tokens, count)
    plan = state.plan
    if isinstance(model, Planner) and plan is not None and tokens.shape[1] == 1:
        plan = model.plan(cache.pool, appended.table, appended.length, plan)
        appended = appended._replace(plan=plan)
    pool, hidden = model.forward(cache.pool, appended, tokens)
    last = jnp.maximum(count - 1, 0)
    last_hidden = jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
    slot = jnp.where(appended.ok, branch_ids, cache.num_slots)
    taken = jnp.sum(jnp.where(appended.ok, count, 0))
    ledger = cache.ledger.add(steps=runs, **{counter: taken})
    if constraint is not None:
        constraint = constraint.place(slot, grammar_state)
    state = state.replace(
        cache=cache.replace(pool=pool, ledger=ledger),
        hidden=state.hidden.at[slot].set(last_hidden, mode="drop"),
        constraint=constraint,
        plan=plan,
    )
    return state, hidden, appended.ok
