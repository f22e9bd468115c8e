"""Running tokens through the model: prefill and decode steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax.cache import Appended, KVPool
from dendrite_jax.engine.constraint import accept_tokens
from dendrite_jax.engine.state import Model, Planner, State
from dendrite_jax.kernels.dispatch import PREFILL_CHUNK, prefill_chunk


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
      The state, and the logits of each branch's next token. A branch that is given an id outside
      the vocabulary is flagged and takes none.
    """
    state, ok = advance(model, state, branch_ids, tokens)
    hidden = state.hidden[jnp.maximum(branch_ids, 0)]
    return state, Stepped(model.unembed(hidden), hidden, ok)


def advance(model: Model, state: State, branch_ids: Array, tokens: Array) -> tuple[State, Array]:
    """`step` without the logits, for loops that take them from `next_logits`; state and ok."""
    tokens, count = tokens[:, None], jnp.ones_like(tokens)
    state, branch_ids = _refuse_unknown(model, state, branch_ids, tokens, count)
    state, _, ok = append_tokens(model, state, branch_ids, tokens, count, "generated")
    return state, ok


def next_logits(model: Model, state: State, branch_ids: Array) -> Array:
    """Logits f32[lanes, vocab] of each branch's next token, from its last hidden state.

    Those of a stale branch (empty, or cut and not yet `rewind`ed) are NaN.
    """
    slot = jnp.maximum(branch_ids, 0)
    stale = (branch_ids >= 0) & state.stale[slot]
    return jnp.where(stale[:, None], jnp.nan, model.unembed(state.hidden[slot]))


def prefill(
    model: Model,
    state: State,
    branch_ids: Array,
    tokens: Array,
    count: Array,
    *,
    chunk: int | None = None,
) -> tuple[State, Stepped]:
    """Appends several tokens to each branch, running at most `chunk` of a lane at a time.

    Each branch gets room for all its tokens or takes none (see `cache.append`), whatever `chunk`.

    Args:
      model: the model.
      state: the engine state; donate it under jit.
      branch_ids: i32[lanes], each at most once; negative for an idle lane.
      tokens: i32[lanes, length]; pad to a few lengths (`length_bucket`), each is one trace.
      count: i32[lanes], how many of a lane's tokens are real; at least 1 in a lane that is used.
      chunk: bounds what is held at once; None takes the model's policy's, or else the platform's.

    Returns:
      The state, and the logits of the token after each branch's last one. A branch that is given
      an id outside the vocabulary is flagged and takes none of its tokens.
    """
    if chunk is None:
        chunk = prefill_chunk(model.policy, tokens.shape[0])
    state, branch_ids = _refuse_unknown(model, state, branch_ids, tokens, count)
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
    state, branch_ids = _refuse_unknown(model, state, branch_ids, tokens, count)
    state, hidden, ok = append_tokens(model, state, branch_ids, tokens, count, "scored")
    return state, model.unembed(hidden), ok


def length_bucket(length: int, smallest: int = 16) -> int:
    """The padded length for `length` tokens: a power of two, or a multiple of PREFILL_CHUNK."""
    if length > PREFILL_CHUNK:
        return -(-length // PREFILL_CHUNK) * PREFILL_CHUNK
    return max(smallest, 1 << (length - 1).bit_length())


def _refuse_unknown(
    model: Model, state: State, branch_ids: Array, tokens: Array, count: Array
) -> tuple[State, Array]:
    """Flags the branches that are given an id outside the vocabulary, and makes theirs idle."""
    real = jnp.arange(tokens.shape[1]) < count[:, None]
    unknown = jnp.any(real & ((tokens < 0) | (tokens >= model.vocab_size)), axis=1)
    flags = jnp.where(unknown, kv.BAD_TOKEN, 0)
    state = state.replace(cache=kv.flag_branches(state.cache, branch_ids, flags))
    return state, jnp.where(unknown, -1, branch_ids)


def _prefill_chunks(
    model: Model, state: State, branch_ids: Array, tokens: Array, count: Array, chunk: int
) -> tuple[State, Array]:
    lanes, length = tokens.shape
    if length <= chunk:
        state, _, ok = append_tokens(model, state, branch_ids, tokens, count, "prefilled")
        return state, ok
    asked = jnp.any(branch_ids >= 0)
    room = _make_room(state, branch_ids, tokens, count)  # all that a prompt needs, or nothing
    appended, count = room.appended, jnp.where(room.appended.ok, count, 0)
    num_chunks = -(-length // chunk)
    chunk = -(-length // num_chunks)

    def split(array: Array, fill: int) -> Array:
        padding = ((0, 0), (0, num_chunks * chunk - length))
        padded = jnp.pad(array, padding, constant_values=fill)
        return jnp.moveaxis(padded.reshape(lanes, num_chunks, chunk), 1, 0)

    def body(carry: tuple[KVPool, Array], piece: tuple[Array, ...]) -> tuple[Any, None]:
        (pool, last_hidden), (index, tokens, block, offset) = carry, piece
        here = jnp.clip(count - index * chunk, 0, chunk)
        start = appended.start + jnp.minimum(index * chunk, count)
        part = appended._replace(
            ok=here > 0,
            start=start,
            length=jnp.where(here > 0, start + here, 0),
            block=block,
            offset=offset,
        )
        pool, hidden = model.forward(pool, part, tokens)
        last = _last(hidden, here).astype(last_hidden.dtype)
        return (pool, jnp.where(part.ok[:, None], last, last_hidden)), None

    pieces = (
        jnp.arange(num_chunks),
        split(tokens, 0),
        split(appended.block, state.cache.num_blocks),
        split(appended.offset, 0),
    )
    start = (room.state.cache.pool, jnp.zeros((lanes, model.hidden_size), state.hidden.dtype))
    (pool, last_hidden), _ = jax.lax.scan(body, start, pieces)
    state = _keep(room, pool, last_hidden, steps=asked * num_chunks, prefilled=jnp.sum(count))
    return state, appended.ok


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
      counter: what the ledger counts them as; a call whose lanes are all idle counts as no step.

    Returns:
      The state, the hidden state [lanes, length, hidden] of each token, and the bool[lanes] of
      lanes that took theirs. One that meets an edge unknown to its `LazyTable` takes none.
    """
    asked = jnp.any(branch_ids >= 0)
    room = _make_room(state, branch_ids, tokens, count)
    state, appended = room.state, room.appended
    plan = state.plan
    if isinstance(model, Planner) and plan is not None and tokens.shape[1] == 1:
        plan = model.plan(state.cache.pool, appended.table, appended.length, plan)
        appended = appended._replace(plan=plan)
    pool, hidden = model.forward(state.cache.pool, appended, tokens)
    taken = jnp.sum(jnp.where(appended.ok, count, 0))
    state = _keep(room, pool, _last(hidden, count), steps=asked, **{counter: taken})
    return state.replace(plan=plan), hidden, appended.ok


class _Room(NamedTuple):
    """Room that lanes have been given for new tokens, before the model has run them."""

    state: State  # with the tokens' ids and the new lengths
    appended: Appended
    slot: Array  # i32[lanes], of the lanes that take their tokens; out of range for the others
    grammar_state: Array | None  # i32[lanes], after the tokens


def _make_room(state: State, branch_ids: Array, tokens: Array, count: Array) -> _Room:
    """Appends token ids; a lane that meets an edge unknown to its `LazyTable` takes none."""
    constraint, grammar_state = state.constraint, None
    if constraint is not None:
        constraint, grammar_state, missed = accept_tokens(constraint, branch_ids, tokens, count)
        branch_ids = jnp.where(missed, -1, branch_ids)
    cache, appended = kv.append(state.cache, branch_ids, tokens, count)
    slot = jnp.where(appended.ok, branch_ids, cache.num_slots)
    return _Room(state.replace(cache=cache, constraint=constraint), appended, slot, grammar_state)


def _keep(room: _Room, pool: KVPool, last_hidden: Array, **counters: Array | int) -> State:
    """The state after the model has run the tokens of a room; last_hidden [lanes, hidden]."""
    state, slot = room.state, room.slot
    constraint = state.constraint
    if constraint is not None and room.grammar_state is not None:
        constraint = constraint.place(slot, room.grammar_state)
    cache = state.cache.replace(pool=pool, ledger=state.cache.ledger.add(**counters))
    hidden = state.hidden.at[slot].set(last_hidden, mode="drop")
    stale = state.stale.at[slot].set(False, mode="drop")
    return state.replace(cache=cache, hidden=hidden, stale=stale, constraint=constraint)


def _last(hidden: Array, count: Array) -> Array:
    """The hidden states [lanes, hidden] of each lane's last real token."""
    last = jnp.maximum(count - 1, 0)
    return jnp.take_along_axis(hidden, last[:, None, None], axis=1)[:, 0]
