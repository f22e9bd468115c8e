"""Generating many tokens in one loop on the device."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax.engine.constraint import (
    finish_reason,
    forced_after,
    is_unknown,
    mask_logits,
)
from dendrite_jax.engine.generated import GenerateConfig, Generated, Round, Taken
from dendrite_jax.engine.loops import any_mapped, run_if, while_any
from dendrite_jax.engine.sampling import PLAIN, Sampling, sample, token_logprob
from dendrite_jax.engine.state import Model, Planner, State, branch_tokens, without_stale
from dendrite_jax.engine.step import append_tokens, next_logits
from dendrite_jax.engine.stopping import (
    BAD_LOGITS,
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
    steps: Array  # i32[], token steps done
    ended: Array  # i32[], lanes that have ended


def generate(
    model: Model,
    state: State,
    branch_ids: Array,
    config: GenerateConfig,
    sampling: Sampling = PLAIN,
    stop: StopRules | None = None,
    string_state: Array | None = None,
    begun: Generated | None = None,
    until: Round | None = None,
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
      branch_ids: i32[lanes], each at most once, each holding a token or more; negative for idle. A
        stale branch ends as FAILED at once and raises a misuse flag.
      config: static shape of the result.
      sampling: how to choose tokens.
      stop: what ends a lane early; nothing when None.
      string_state: i32[lanes], from an earlier call that this one continues; None starts afresh.
      begun: what an earlier call with the same arguments gave, or `Generated.empty`: its lanes that
        run, or that ended as GRAMMAR_MISS, go on, the latter over a state whose table has grown.
        Lanes may have been `replaced`, their branch ids with them.
      until: ends the call before its lanes have ended; None lets it run until all have.

    Returns:
      The state and the new tokens. A lane whose branch runs out of blocks or context ends as
      FAILED with the tokens that fitted; one whose logits are NaN or infinite as BAD_LOGITS, its
      branch flagged; one that has left its grammar as GRAMMAR_DEAD; one that needs an edge that its
      `LazyTable` does not know as GRAMMAR_MISS, before that token, which a call with `begun` draws
      again. The others go on.
    """
    stop = StopRules() if stop is None else stop
    state, branch_ids = without_stale(state, branch_ids)
    until = Round() if until is None else until
    limit = jnp.int32(config.max_new_tokens)
    if stop.limit is not None:
        limit = jnp.minimum(stop.limit, limit)
    lane = jnp.arange(branch_ids.shape[0])
    seen = None
    if sampling.repetition_penalty is not None:
        seen = _seen_tokens(model, state, branch_ids)
    if begun is None:
        out = Generated.empty(model, state, branch_ids, config, string_state)
    else:
        missed = begun.finish == GRAMMAR_MISS
        out = begun._replace(finish=jnp.where(missed, RUNNING, begun.finish))
    at_limit = (out.finish == RUNNING) & (out.length >= limit)
    out = out._replace(finish=jnp.where(at_limit, LENGTH, out.finish))

    def goes_on(loop: _Loop) -> Array:
        unfinished = jnp.any(loop.out.finish == RUNNING)
        if until.pause is not None:
            unfinished &= loop.ended < until.pause
        if until.steps is not None:
            unfinished &= loop.steps < until.steps
        return unfinished

    def body(loop: _Loop) -> _Loop:
        out = loop.out
        # Under `vmap` a state whose lanes have ended idles while another's run.
        running = (out.finish == RUNNING) & goes_on(loop)
        ids = jnp.where(running, branch_ids, -1)
        slot = jnp.maximum(ids, 0)
        logits = next_logits(model, loop.state, ids)
        position = loop.state.cache.length[slot]
        masked = mask_logits(loop.state, ids, logits)
        chosen = sample(logits, loop.state.key[slot], position, sampling, loop.seen, masked)
        bad = running & loop.state.cache.alive[slot] & _is_bad(logits)
        unknown = is_unknown(loop.state, ids, chosen.token) & ~bad

        tokens, count = forced_after(loop.state, ids, chosen.token, config.fast_forward)
        room = jnp.minimum(limit - out.length, loop.state.cache.max_context - position)
        count = jnp.clip(room, 1, count)
        string_state, reason, count = _read_stops(stop, out.string_state, tokens, count)
        ids = jnp.where(bad, -1, ids)
        state, hidden, forced, ok = _append(model, loop.state, ids, tokens, count, config)
        flags = jnp.where(bad, kv.BAD_LOGITS, 0)
        state = state.replace(cache=kv.flag_branches(state.cache, branch_ids, flags))

        by_grammar = finish_reason(state, ids)
        reason = jnp.where(by_grammar == RUNNING, reason, by_grammar)
        reason = jnp.where(ok, reason, jnp.where(unknown, GRAMMAR_MISS, FAILED))
        reason = jnp.where(bad, BAD_LOGITS, reason)
        kept = running & ok
        first = _Said(chosen.raw_logprob, chosen.logprob, *_top(logits, config))
        said = _join(first, forced)
        new = jnp.where(kept, count, 0)
        out = out.append(Taken(length=new, tokens=tokens, hidden=hidden, **said._asdict()))
        full = (reason == RUNNING) & (out.length >= limit)
        out = out._replace(
            finish=jnp.where(running, jnp.where(full, LENGTH, reason), out.finish),
            string_state=jnp.where(kept, string_state, out.string_state),
        )
        seen = loop.seen
        if seen is not None:
            read = jnp.arange(tokens.shape[1]) < count[:, None]
            columns = jnp.where(read, tokens, model.vocab_size)
            seen = seen.at[lane[:, None], columns].set(True, mode="drop")
        ended = jnp.sum(running & (out.finish != RUNNING), dtype=jnp.int32)
        return _Loop(state, seen, out, loop.steps + jnp.any(running), loop.ended + ended)

    planned = state.replace(plan=_first_plan(model, state, branch_ids))
    end = while_any(goes_on, body, _Loop(planned, seen, out, jnp.int32(0), jnp.int32(0)))
    return end.state.replace(plan=None), end.out


def _is_bad(logits: Array) -> Array:
    """bool[lanes]: the logits [lanes, vocab] are no distribution."""
    return ~jnp.isfinite(jax.nn.logsumexp(logits, axis=-1))


def _first_plan(model: Model, state: State, branch_ids: Array) -> Any:
    """The model's plan for the lanes as they are, or None; what a loop then keeps up to date."""
    if not isinstance(model, Planner):
        return None
    slot = jnp.maximum(branch_ids, 0)
    length = jnp.where(branch_ids < 0, 0, state.cache.length[slot])
    return model.plan(state.cache.pool, state.cache.table[slot], length, None)


class _Said(NamedTuple):
    """What the model says of the tokens taken: [lanes, ...], or [lanes, n, ...] of n tokens."""

    raw_logprobs: Array  # f32[lanes, n]
    logprobs: Array  # f32[lanes, n]
    top_tokens: Array | None  # i32[lanes, n, top_logprobs], if asked for
    top_raw_logprobs: Array | None  # f32[lanes, n, top_logprobs]


def _join(first: _Said, forced: _Said | None) -> _Said:
    """Puts the sampled token, [lanes, ...], before those that follow it, [lanes, n, ...]."""
    first = jax.tree.map(lambda one: one[:, None], first)
    if forced is None:
        return first
    return jax.tree.map(lambda one, rest: jnp.concatenate([one, rest], axis=1), first, forced)


class _Step(NamedTuple):
    """What a step gives for n tokens a lane; arbitrary past those that a lane takes."""

    state: State
    hidden: Array  # [lanes, n, hidden]
    said: _Said | None  # of all tokens but the first, [lanes, n - 1, ...]; None where n is 1
    ok: Array  # bool[lanes]


def _append(
    model: Model, state: State, ids: Array, tokens: Array, count: Array, config: GenerateConfig
) -> _Step:
    """Appends the first `count` tokens of each lane, in a step as wide as some lane needs it."""
    lanes, width = tokens.shape
    if width == 1:
        state, hidden, ok = append_tokens(model, state, ids, tokens, count, "generated")
        return _Step(state, hidden, None, ok)
    # Of all that `vmap` maps over, so that a step has one width.
    wide = any_mapped(jnp.any((ids >= 0) & (count > 1)))
    took = _Step(
        state,
        hidden=jnp.zeros((lanes, width, model.hidden_size), model.dtype),
        said=_nothing_said(lanes, width - 1, config),
        ok=jnp.zeros(lanes, bool),
    )

    def one(_: Array, took: _Step) -> _Step:
        state, hidden, ok = append_tokens(model, took.state, ids, tokens[:, :1], count, "generated")
        return took._replace(state=state, hidden=took.hidden.at[:, :1].set(hidden), ok=ok)

    def several(_: Array, took: _Step) -> _Step:
        state, hidden, ok = append_tokens(model, took.state, ids, tokens, count, "generated")
        logits = model.unembed(hidden[:, :-1])
        raw_logprobs = token_logprob(logits, tokens[:, 1:])
        # What is forced has all the mass that the grammar leaves.
        said = _Said(raw_logprobs, jnp.zeros_like(raw_logprobs), *_top(logits, config))
        return _Step(state, hidden, said, ok)

    return run_if(wide, several, run_if(~wide, one, took))


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


def _nothing_said(lanes: int, tokens: int, config: GenerateConfig) -> _Said:
    zeros, top = jnp.zeros((lanes, tokens), jnp.float32), (lanes, tokens, config.top_logprobs)
    if config.top_logprobs == 0:
        return _Said(zeros, zeros, None, None)
    return _Said(zeros, zeros, jnp.zeros(top, jnp.int32), jnp.zeros(top, jnp.float32))


def _top(logits: Array, config: GenerateConfig) -> tuple[Array | None, Array | None]:
    """The likeliest tokens [..., top_logprobs] of logits [..., vocab], and their logprobs."""
    if config.top_logprobs == 0:
        return None, None
    values, tokens = jax.lax.top_k(jax.nn.log_softmax(logits), config.top_logprobs)
    return tokens, values


def _seen_tokens(model: Model, state: State, branch_ids: Array) -> Array:
    """Which tokens each branch holds, bool[lanes, vocab]."""
    tokens, length = branch_tokens(state, branch_ids)
    held = jnp.arange(tokens.shape[1]) < length[:, None]
    lane = jnp.arange(tokens.shape[0])[:, None]
    seen = jnp.zeros((tokens.shape[0], model.vocab_size), bool)
    return seen.at[lane, jnp.where(held, tokens, model.vocab_size)].set(True, mode="drop")
