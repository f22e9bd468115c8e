"""Generating many tokens in one `lax.while_loop`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine.constraint import finish_reason, is_unknown, mask_logits
from dendrite_jax.engine.sampling import PLAIN, Sampling, sample
from dendrite_jax.engine.state import Model, State, branch_tokens
from dendrite_jax.engine.step import advance, next_logits
from dendrite_jax.engine.stopping import (
    FAILED,
    GRAMMAR_MISS,
    LENGTH,
    RUNNING,
    StopRules,
    advance_stop,
)
from dendrite_jax.grammar import NO_TOKEN


@dataclass(frozen=True)
class GenerateConfig:
    """Static shape of a generation.

    Attributes:
      max_new_tokens: most tokens a lane gets.
      top_logprobs: how many of the most likely tokens to report at each place.
      return_hidden: whether to keep the hidden state after each token.
    """

    max_new_tokens: int
    top_logprobs: int = 0
    return_hidden: bool = False

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        if self.top_logprobs < 0:
            raise ValueError(f"top_logprobs is {self.top_logprobs}; it must be at least 0")


class Generated(NamedTuple):
    """The new tokens of each lane; places at or past `length` hold NO_TOKEN and zeros."""

    tokens: Array  # i32[lanes, max_new_tokens]
    length: Array  # i32[lanes]
    raw_logprobs: Array  # f32[lanes, max_new_tokens], under the model's own distribution
    logprobs: Array  # f32[lanes, max_new_tokens], under the processed distribution
    finish: Array  # i32[lanes], an index of FINISH_NAMES
    top_tokens: Array  # i32[lanes, max_new_tokens, top_logprobs], most likely first
    top_raw_logprobs: Array  # f32[lanes, max_new_tokens, top_logprobs]
    string_state: Array  # i32[lanes], where stop-string matching stands; give it to go on
    hidden: Array | None  # [lanes, max_new_tokens, hidden], after each token, if asked for


class _Loop(NamedTuple):
    step: Array  # i32[]
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
) -> tuple[State, Generated]:
    """Grows branches until each meets a stop rule, its length, or a full cache.

    A branch under a grammar (`constrain`) draws from the tokens that it allows, and ends as
    STOP_TOKEN with its text, at once where the text is complete already.

    Every token, the last one included, is appended to its branch, so that a branch holds exactly
    what it generated and can be forked or continued. What a branch gets depends on its own tokens,
    key and position only, not on the other lanes.

    Args:
      model: the model.
      state: the engine state; donate it under jit.
      branch_ids: i32[lanes], each at most once, each holding a token or more; negative for idle.
      config: static shape of the result.
      sampling: how to choose tokens.
      stop: what ends a lane early; nothing when None.
      string_state: i32[lanes], from an earlier call that this one continues; None starts afresh.

    Returns:
      The state and the new tokens. A lane whose branch runs out of blocks or context ends as
      FAILED with the tokens that fitted; one that has left its grammar as GRAMMAR_DEAD; one that
      needs an edge that its `LazyTable` does not know as GRAMMAR_MISS, before that token: a call
      with the grown table draws the same token again and goes on. The others go on.
    """
    stop = StopRules.of() if stop is None else stop
    lanes = branch_ids.shape[0]
    seen = None
    if sampling.repetition_penalty is not None:
        seen = _seen_tokens(model, state, branch_ids)

    def body(loop: _Loop) -> _Loop:
        running = loop.out.finish == RUNNING
        ids = jnp.where(running, branch_ids, -1)
        slot = jnp.maximum(ids, 0)
        logits = next_logits(model, loop.state, ids)
        position = loop.state.cache.length[slot]
        masked = mask_logits(loop.state, ids, logits)
        chosen = sample(logits, loop.state.key[slot], position, sampling, loop.seen, masked)
        unknown = is_unknown(loop.state, ids, chosen.token)
        state, ok = advance(model, loop.state, ids, chosen.token)
        string_state, reason = advance_stop(stop, loop.out.string_state, chosen.token)
        by_grammar = finish_reason(state, ids)
        reason = jnp.where(by_grammar == RUNNING, reason, by_grammar)
        reason = jnp.where(ok, reason, jnp.where(unknown, GRAMMAR_MISS, FAILED))
        last = loop.step + 1 == config.max_new_tokens
        reason = jnp.where((reason == RUNNING) & last, LENGTH, reason)

        out, kept = loop.out, running & ok
        length = out.length + kept
        out = out._replace(
            tokens=out.tokens.at[:, loop.step].set(jnp.where(kept, chosen.token, NO_TOKEN)),
            length=length,
            raw_logprobs=out.raw_logprobs.at[:, loop.step].set(
                jnp.where(kept, chosen.raw_logprob, 0.0)
            ),
            logprobs=out.logprobs.at[:, loop.step].set(jnp.where(kept, chosen.logprob, 0.0)),
            finish=jnp.where(running, reason, out.finish),
            string_state=jnp.where(kept, string_state, out.string_state),
        )
        out = _record_top(out, logits, kept, loop.step, config)
        if out.hidden is not None:
            hidden = jnp.where(kept[:, None], state.hidden[slot], 0)
            out = out._replace(hidden=out.hidden.at[:, loop.step].set(hidden))
        seen = loop.seen
        if seen is not None:
            seen = seen.at[jnp.arange(lanes), chosen.token].set(True)
        return _Loop(loop.step + 1, state, seen, out)

    start = _Loop(
        step=jnp.int32(0),
        state=state,
        seen=seen,
        out=_empty(model, state, branch_ids, config, string_state),
    )
    end = jax.lax.while_loop(lambda loop: jnp.any(loop.out.finish == RUNNING), body, start)
    return end.state, end.out


def _empty(
    model: Model,
    state: State,
    branch_ids: Array,
    config: GenerateConfig,
    string_state: Array | None,
) -> Generated:
    lanes = branch_ids.shape[0]
    shape = (lanes, config.max_new_tokens)
    hidden = (*shape, model.hidden_size)
    return Generated(
        tokens=jnp.full(shape, NO_TOKEN, jnp.int32),
        length=jnp.zeros(lanes, jnp.int32),
        raw_logprobs=jnp.zeros(shape, jnp.float32),
        logprobs=jnp.zeros(shape, jnp.float32),
        finish=jnp.where(branch_ids >= 0, finish_reason(state, branch_ids), FAILED),
        top_tokens=jnp.full((*shape, config.top_logprobs), NO_TOKEN, jnp.int32),
        top_raw_logprobs=jnp.zeros((*shape, config.top_logprobs), jnp.float32),
        string_state=jnp.zeros(lanes, jnp.int32) if string_state is None else string_state,
        hidden=jnp.zeros(hidden, model.dtype) if config.return_hidden else None,
    )


def _record_top(
    out: Generated, logits: Array, kept: Array, step: Array, config: GenerateConfig
) -> Generated:
    if config.top_logprobs == 0:
        return out
    values, tokens = jax.lax.top_k(jax.nn.log_softmax(logits), config.top_logprobs)
    kept = kept[:, None]
    return out._replace(
        top_tokens=out.top_tokens.at[:, step].set(jnp.where(kept, tokens, NO_TOKEN)),
        top_raw_logprobs=out.top_raw_logprobs.at[:, step].set(jnp.where(kept, values, 0.0)),
    )


def _seen_tokens(model: Model, state: State, branch_ids: Array) -> Array:
    """Which tokens each branch holds, bool[lanes, vocab]."""
    tokens, length = branch_tokens(state, branch_ids)
    held = jnp.arange(tokens.shape[1]) < length[:, None]
    lane = jnp.arange(tokens.shape[0])[:, None]
    seen = jnp.zeros((tokens.shape[0], model.vocab_size), bool)
    return seen.at[lane, jnp.where(held, tokens, model.vocab_size)].set(True, mode="drop")
