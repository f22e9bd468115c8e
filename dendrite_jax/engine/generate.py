"""Generating many tokens in one loop on the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine.constraint import (
    finish_reason,
    forced_after,
    is_unknown,
    mask_logits,
)
from dendrite_jax.engine.generated import GenerateConfig, Generated, Taken
from dendrite_jax.engine.loops import while_any
from dendrite_jax.engine.sampling import PLAIN, Sampling, sample, token_logprob
from dendrite_jax.engine.state import Model, Planner, State, branch_tokens
from dendrite_jax.engine.step import append_tokens, next_logits
from dendrite_jax.engine.stopping import (
    FAILED,
    GRAMMAR_MISS,
    LENGTH,
    RUNNING,
    StopRules,
    advance_stop,
)


class _Loop(NamedTuple):
    state: State
    seen: Array | None  # bool[lanes, vocab]
    out: Generated


def generate(
    model: Model,
    state: State,
    branch_ids: Array,
    config: GenerateConfig,
    sampling: Sampling = PLAIN,
    stop: StopRules | None = None,
    string_state: Array | None = None,
    begun: Generated | None = None,
) -> tuple[State, Generated]:
    """Grows branches until each meets a stop rule, its length, or a full cache.

    Every token, the last one included, is appended to its branch, so that a branch holds exactly
    what it generated and can be forked or continued. What a branch gets depends on its own tokens,
    key and position only, not on the other lanes.

    A branch under a grammar (`constrain`) draws from the tokens that it allows, and ends as
    STOP_TOKEN with its text, at once where the text is complete already.

    Args:
      model: the model.
      state: the engine state; donate it under jit.
      branch_ids: i32[lanes], each at most once, each holding a token or more; negative for idle.
      config: static shape of the result.
      sampling: how to choose tokens.
      stop: what ends a lane early; nothing when None.
      string_state: i32[lanes], from an earlier call that this one continues; None starts afresh.
      begun: what an earlier call with the same arguments gave, or `Generated.empty`: its lanes that
        ended as GRAMMAR_MISS go on, over a state whose table has grown.

    Returns:
      The state and the new tokens. A lane whose branch runs out of blocks or context ends as
      FAILED with the tokens that fitted; one that has left its grammar as GRAMMAR_DEAD; one that
      needs an edge that its `LazyTable` does not know as GRAMMAR_MISS, before that token, which a
      call with `begun` draws again. The others go on.
    """
    stop = StopRules.of() if stop is None else stop
    lane = jnp.arange(branch_ids.shape[0])
    seen = None
    if sampling.repetition_penalty is not None:
        seen = _seen_tokens(model, state, branch_ids)
    if begun is None:
        out = Generated.empty(model, state, branch_ids, config, string_state)
    else:
        missed = begun.finish == GRAMMAR_MISS
        out = begun._replace(finish=jnp.where(missed, RUNNING, begun.finish))

    def body(loop: _Loop) -> _Loop:
        out = loop.out
        running = out.finish == RUNNING
        ids = jnp.where(running, branch_ids, -1)
        slot = jnp.maximum(ids, 0)
        logits = next_logits(model, loop.state, ids)
        position = loop.state.cache.length[slot]
        masked = mask_logits(loop.state, ids, logits)
        chosen = sample(logits, loop.state.key[slot], position, sampling, loop.seen, masked)
        unknown = is_unknown(loop.state, ids, chosen.token)

        tokens, count = forced_after(loop.state, ids, chosen.token, config.fast_forward)
        room = jnp.minimum(
            config.max_new_tokens - out.length, loop.state.cache.max_context - position
        )
        count = jnp.clip(room, 1, count)
        string_state, reason, count = _read_stops(stop, out.string_state, tokens, count)
        state, hidden, forced, ok = _append(model, loop.state, ids, tokens, count, config)

        by_grammar = finish_reason(state, ids)
        reason = jnp.where(by_grammar == RUNNING, reason, by_grammar)
        reason = jnp.where(ok, reason, jnp.where(unknown, GRAMMAR_MISS, FAILED))
        kept = running & ok
        top_tokens, top_raw_logprobs = _top(logits, config)
        out = out.append(
            Taken(
                length=jnp.where(kept, count, 0),
                tokens=tokens,
                raw_logprobs=_after(chosen.raw_logprob, forced.raw_logprobs),
                # What is forced has all the mass that the grammar leaves.
                logprobs=_after(chosen.logprob, jnp.zeros_like(forced.raw_logprobs)),
                top_tokens=_after(top_tokens, forced.top_tokens),
                top_raw_logprobs=_after(top_raw_logprobs, forced.top_raw_logprobs),
                hidden=hidden,
            )
        )
        full = (reason == RUNNING) & (out.length == config.max_new_tokens)
        out = out._replace(
            finish=jnp.where(running, jnp.where(full, LENGTH, reason), out.finish),
            string_state=jnp.where(kept, string_state, out.string_state),
        )
        seen = loop.seen
        if seen is not None:
            read = jnp.arange(tokens.shape[1]) < count[:, None]
            columns = jnp.where(read, tokens, model.vocab_size)
            seen = seen.at[lane[:, None], columns].set(True, mode="drop")
        return _Loop(state, seen, out)

    def goes_on(loop: _Loop) -> Array:
        return jnp.any(loop.out.finish == RUNNING)

    planned = state.replace(plan=_first_plan(model, state, branch_ids))
    end = while_any(goes_on, body, _Loop(planned, seen, out))
    return end.state.replace(plan=None), end.out


def _first_plan(model: Model, state: State, branch_ids: Array) -> Any:
    """The model's plan for the lanes as they are, or None; what a loop then keeps up to date."""
    if not isinstance(model, Planner):
        return None
    slot = jnp.maximum(branch_ids, 0)
    length = jnp.where(branch_ids < 0, 0, state.cache.length[slot])
    return model.plan(state.cache.pool, state.cache.table[slot], length, None)


class _Forced(NamedTuple):
    """What the model says of the tokens that follow a sampled one, n of them."""

    raw_logprobs: Array  # f32[lanes, n]
    top_tokens: Array  # i32[lanes, n, top_logprobs]
    top_raw_logprobs: Array  # f32[lanes, n, top_logprobs]


def _append(
    model: Model, state: State, ids: Array, tokens: Array, count: Array, config: GenerateConfig
) -> tuple[State, Array, _Forced, Array]:
    """Appends the first `count` tokens of each lane, in a step as wide as some lane needs it.

    Returns the state, the hidden states [lanes, tokens, hidden] and what is said of all tokens but
    the first, arbitrary past `count`, and the lanes' ok.
    """

    lanes, width = tokens.shape
    more = width - 1

    def one(state: State) -> tuple[State, Array, _Forced, Array]:
        state, hidden, ok = append_tokens(model, state, ids, tokens[:, :1], count, "generated")
        nothing = _Forced(
            raw_logprobs=jnp.zeros((lanes, more), jnp.float32),
            top_tokens=jnp.zeros((lanes, more, config.top_logprobs), jnp.int32),
            top_raw_logprobs=jnp.zeros((lanes, more, config.top_logprobs), jnp.float32),
        )
        return state, jnp.pad(hidden, ((0, 0), (0, more), (0, 0))), nothing, ok

    def several(state: State) -> tuple[State, Array, _Forced, Array]:
        state, hidden, ok = append_tokens(model, state, ids, tokens, count, "generated")
        logits = model.unembed(hidden[:, :-1])
        forced = _Forced(token_logprob(logits, tokens[:, 1:]), *_top(logits, config))
        return state, hidden, forced, ok

    return one(state) if more == 0 else jax.lax.cond(jnp.any(count > 1), several, one, state)


def _after(first: Array, rest: Array) -> Array:
    """[lanes, ...] before [lanes, n, ...] along the second axis."""
    return jnp.concatenate([first[:, None], rest], axis=1)


def _read_stops(
    stop: StopRules, string_state: Array, tokens: Array, count: Array
) -> tuple[Array, Array, Array]:
    """Feeds each lane's first `count` tokens to the stop rules, up to one that ends it.

    Returns the string states i32[lanes], why lanes end (or RUNNING), and how many tokens were read.
    """
    string_state, reason = advance_stop(stop, string_state, tokens[:, 0])
    read = jnp.ones_like(count)
    for column in range(1, tokens.shape[1]):
        reading = (column < count) & (reason == RUNNING)
        after, why = advance_stop(stop, string_state, tokens[:, column])
        string_state = jnp.where(reading, after, string_state)
        reason = jnp.where(reading, why, reason)
        read = read + reading
    return string_state, reason, read


def _top(logits: Array, config: GenerateConfig) -> tuple[Array, Array]:
    """The likeliest tokens [..., top_logprobs] of logits [..., vocab], and their logprobs."""
    if config.top_logprobs == 0:
        shape = (*logits.shape[:-1], 0)
        return jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
    values, tokens = jax.lax.top_k(jax.nn.log_softmax(logits), config.top_logprobs)
    return tokens, values


def _seen_tokens(model: Model, state: State, branch_ids: Array) -> Array:
    """Which tokens each branch holds, bool[lanes, vocab]."""
    tokens, length = branch_tokens(state, branch_ids)
    held = jnp.arange(tokens.shape[1]) < length[:, None]
    lane = jnp.arange(tokens.shape[0])[:, None]
    seen = jnp.zeros((tokens.shape[0], model.vocab_size), bool)
    return seen.at[lane, jnp.where(held, tokens, model.vocab_size)].set(True, mode="drop")
