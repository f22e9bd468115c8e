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
    until = Round() if until is None else until
    state, branch_ids = without_stale(state, branch_ids)
    limit = jnp.int32(config.max_new_tokens)
    if stop.limit is not None:
        limit = jnp.minimum(stop.limit, limit)
    if begun is None:
        begun = Generated.empty(model, state, branch_ids, config, string_state)
    seen = None
    if sampling.repetition_penalty is not None:
        seen = _seen_tokens(model, state, branch_ids)
    rules = _Rules(config, sampling, stop, limit)

    def goes_on(loop: _Loop) -> Array:
        unfinished = jnp.any(loop.out.finish == RUNNING)
        if until.pause is not None:
            unfinished &= loop.ended < until.pause
        if until.steps is not None:
            unfinished &= loop.steps < until.steps
        return unfinished

    def body(loop: _Loop) -> _Loop:
        # Under `vmap` a state whose lanes have ended idles while another's run.
        running = (loop.out.finish == RUNNING) & goes_on(loop)
        return _take_step(model, loop, jnp.where(running, branch_ids, kv.NO_BRANCH), rules)

    loop = _Loop(
        state=state.replace(plan=_first_plan(model, state, branch_ids)),
        seen=seen,
        out=begun._replace(finish=_resumed(begun, branch_ids, limit)),
        steps=jnp.int32(0),
        ended=jnp.int32(0),
    )
    end = while_any(goes_on, body, loop)
    return end.state.replace(plan=None), end.out


class _Rules(NamedTuple):
    """What a generation was asked for."""

    config: GenerateConfig
    sampling: Sampling
    stop: StopRules
    limit: Array  # i32[] or i32[lanes], most new tokens


def _resumed(begun: Generated, branch_ids: Array, limit: Array) -> Array:
    """i32[lanes]: why lanes have ended before the first step, or RUNNING."""
    missed = begun.finish == GRAMMAR_MISS
    finish = jnp.where(missed, RUNNING, begun.finish)
    ended = jnp.where(branch_ids < 0, FAILED, jnp.where(begun.length >= limit, LENGTH, RUNNING))
    return jnp.where(finish == RUNNING, ended, finish)


def _take_step(model: Model, loop: _Loop, ids: Array, rules: _Rules) -> _Loop:
    """Grows the branches i32[lanes] by a token, or by several where all but the first are forced.

    A negative id is a lane that has ended, and stays as it is.
    """
    running, slot, config = ids >= 0, jnp.maximum(ids, 0), rules.config
    cache, out = loop.state.cache, loop.out
    logits = next_logits(model, loop.state, ids)
    position = cache.length[slot]
    masked = mask_logits(loop.state, ids, logits)
    chosen = sample(logits, loop.state.key[slot], position, rules.sampling, loop.seen, masked)
    bad = running & cache.alive[slot] & (cache.error[slot] == 0) & _is_bad(logits)
    unknown = is_unknown(loop.state, ids, chosen.token) & ~bad

    tokens, count = forced_after(loop.state, ids, chosen.token, config.fast_forward)
    room = jnp.minimum(rules.limit - out.length, cache.max_context - position)
    count = jnp.clip(room, 1, count)
    string_state, stopped, count = _read_stops(rules.stop, out.string_state, tokens, count)
    taken = jnp.where(bad, kv.NO_BRANCH, ids)
    state, hidden, forced, ok = _append(model, loop.state, taken, tokens, count, config)
    flags = jnp.where(bad, kv.BAD_LOGITS, 0)
    state = state.replace(cache=kv.flag_branches(state.cache, ids, flags))

    first = _Said(chosen.raw_logprob, chosen.logprob, *_top(logits, config))
    said = _join(first, forced)
    new = jnp.where(ok, count, 0)
    out = out.append(Taken(length=new, tokens=tokens, hidden=hidden, **said._asdict()))
    by_grammar = finish_reason(state, taken)
    reason = jnp.where(by_grammar == RUNNING, stopped, by_grammar)
    reason = jnp.where((reason == RUNNING) & (out.length >= rules.limit), LENGTH, reason)
    reason = jnp.where(ok, reason, jnp.where(unknown, GRAMMAR_MISS, FAILED))
    reason = jnp.where(bad, BAD_LOGITS, reason)
    out = out._replace(
        finish=jnp.where(running, reason, out.finish),
        string_state=jnp.where(ok, string_state, out.string_state),
    )
    return _Loop(
        state=state,
        seen=None if loop.seen is None else _with_seen(loop.seen, tokens, new),
        out=out,
        steps=loop.steps + jnp.any(running),
        ended=loop.ended + jnp.sum(running & (reason != RUNNING), dtype=jnp.int32),
    )


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
    return _with_seen(jnp.zeros((tokens.shape[0], model.vocab_size), bool), tokens, length)


def _with_seen(seen: Array, tokens: Array, count: Array) -> Array:
    """`seen` with the first i32[lanes] of each lane's tokens i32[lanes, n]."""
    read = jnp.arange(tokens.shape[1]) < count[:, None]
    lane = jnp.arange(tokens.shape[0])[:, None]
    return seen.at[lane, jnp.where(read, tokens, seen.shape[1])].set(True, mode="drop")
