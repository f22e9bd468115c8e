"""Beam search over tokens, batched over problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import engine
from dendrite_jax.engine import NO_TOKEN, Model, State


@dataclass(frozen=True)
class BeamSearchConfig:
    """Static shape of the search; scores and stopping follow Hugging Face's `generate`.

    Attributes:
      width: beams a problem.
      max_new_tokens: most tokens a beam gets.
      length_penalty: a finished beam's score is its log-probability / length ** length_penalty.
      early_stopping: stop a problem as soon as `width` beams have finished; otherwise go on until
        the best running beam, scored at its present length, is worse than every finished one.
    """

    width: int = 4
    max_new_tokens: int = 64
    length_penalty: float = 1.0
    early_stopping: bool = False

    def __post_init__(self) -> None:
        for field in ("width", "max_new_tokens"):
            value = getattr(self, field)
            if value < 1:
                raise ValueError(f"{field} is {value}; it must be at least 1")

    @property
    def num_slots(self) -> int:
        """Branches that one problem holds at once, its root included."""
        return 1 + 2 * self.width


class BeamSearchResult(NamedTuple):
    """The finished beams of each problem, best first."""

    tokens: Array  # i32[problems, width, max_new_tokens], NO_TOKEN past the end
    length: Array  # i32[problems, width], tokens of the beam, its stop token included
    logprob: Array  # f32[problems, width], sum over the tokens; −inf where there is no beam
    score: Array  # f32[problems, width], logprob under the length penalty


class _Beams(NamedTuple):
    tokens: Array  # i32[problems, beams, max_new_tokens]
    length: Array  # i32[problems, beams]
    logprob: Array  # f32[problems, beams], −inf for none
    score: Array  # f32[problems, beams], −inf for none


class _Loop(NamedTuple):
    step: Array  # i32[]
    state: State
    branches: Array  # i32[problems, width], running beams
    running: _Beams
    finished: _Beams
    searching: Array  # bool[problems]


def beam_search(
    model: Model,
    state: State,
    roots: Array,
    key: Array | None,
    config: BeamSearchConfig,
    *,
    stop_tokens: Array | None = None,
) -> tuple[State, BeamSearchResult]:
    """Finds likely continuations of each root.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held.
      key: unused, beam search is deterministic; here so that all searches are called alike.
      config: static shape of the search.
      stop_tokens: i32[n], a beam that takes one is finished.

    Returns:
      The state, with every branch but the roots freed, and the beams. A problem that runs out of
      blocks, slots or context ends with the beams it has.

    Raises:
      ValueError: the vocabulary has fewer tokens than a step must rank for each beam.
    """
    del key
    stop_tokens = jnp.zeros(0, jnp.int32) if stop_tokens is None else stop_tokens
    per_beam = max(2, 1 + stop_tokens.shape[0])
    if per_beam > model.vocab_size:
        raise ValueError(
            f"stop_tokens are {stop_tokens.shape[0]} and vocab_size is {model.vocab_size}; it must "
            f"be at least {per_beam}, the continuations that a step ranks for each beam"
        )
    problems = roots.shape[0]
    state, first = engine.fork(state, roots)
    none = _no_beams(problems, config)
    loop = _Loop(
        step=jnp.int32(0),
        state=state,
        branches=jnp.full((problems, config.width), -1, jnp.int32).at[:, 0].set(first),
        running=none._replace(
            logprob=none.logprob.at[:, 0].set(jnp.where(first >= 0, 0.0, -jnp.inf))
        ),
        finished=none,
        searching=first >= 0,
    )

    def body(loop: _Loop) -> _Loop:
        return _step(model, loop, config, stop_tokens, per_beam * config.width)

    loop = jax.lax.while_loop(lambda loop: jnp.any(loop.searching), body, loop)
    state = engine.free(loop.state, loop.branches.reshape(-1))
    return state, BeamSearchResult(*loop.finished)


def _step(
    model: Model, loop: _Loop, config: BeamSearchConfig, stop_tokens: Array, ranked: int
) -> _Loop:
    """Ranks every continuation, finishes those that stop, and runs on with the best others."""
    problems, width = loop.branches.shape
    parent, candidates, token = _rank_continuations(model, loop, config, ranked)
    branches = jnp.take_along_axis(loop.branches, parent, axis=1)
    stops = jnp.any(token[..., None] == stop_tokens, axis=-1)
    stops |= engine.ends_text(loop.state, branches, token)
    stops |= loop.step + 1 == config.max_new_tokens

    # Only a stop among the best `width` continuations finishes a beam.
    ends = stops & (jnp.arange(ranked) < width) & loop.searching[:, None]
    finished = _merge(loop.finished, _keep_where(candidates, ends), config)

    runs_on = _keep_where(candidates, ~stops & loop.searching[:, None])
    logprob, index = jax.lax.top_k(runs_on.logprob, width)
    running = _gather(runs_on, index)
    parents = jnp.take_along_axis(branches, index, axis=1)
    parents = jnp.where(jnp.isneginf(logprob), -1, parents)
    next_token = jnp.take_along_axis(token, index, axis=1)
    state, children = engine.fork(loop.state, parents.reshape(-1))
    state = engine.free(state, loop.branches.reshape(-1))
    state, ok = engine.advance(model, state, children, next_token.reshape(-1))

    # A problem that ran out of room ends here with what it has.
    stuck = jnp.any((parents >= 0) & ~ok.reshape(problems, width), axis=1)
    finished = _merge(finished, _keep_where(running, stuck[:, None]), config)
    searching = loop.searching & ~stuck & _can_improve(running, finished, loop.step + 1, config)
    running = _keep_where(running, searching[:, None])
    branches = children.reshape(problems, width)
    state = engine.free(state, jnp.where(searching[:, None], -1, branches).reshape(-1))
    return _Loop(
        step=loop.step + 1,
        state=state,
        branches=jnp.where(searching[:, None], branches, -1),
        running=running,
        finished=finished,
        searching=searching,
    )


def _rank_continuations(
    model: Model, loop: _Loop, config: BeamSearchConfig, ranked: int
) -> tuple[Array, _Beams, Array]:
    """The best continuations of each problem: their parent beams, themselves, their tokens."""
    problems, width = loop.branches.shape
    ids = loop.branches.reshape(-1)
    logprobs = jax.nn.log_softmax(engine.next_logits(model, loop.state, ids))
    logprobs = engine.mask_logits(loop.state, ids, logprobs).reshape(problems, width, -1)
    total = logprobs + loop.running.logprob[..., None]
    logprob, index = jax.lax.top_k(total.reshape(problems, -1), ranked)
    parent, token = jnp.divmod(index, logprobs.shape[-1])
    beams = _gather(loop.running, parent)
    length = beams.length + 1
    return (
        parent,
        _Beams(
            tokens=beams.tokens.at[..., loop.step].set(token),
            length=length,
            logprob=logprob,
            score=logprob / length.astype(jnp.float32) ** config.length_penalty,
        ),
        token,
    )


def _can_improve(
    running: _Beams, finished: _Beams, length: Array, config: BeamSearchConfig
) -> Array:
    """Whether each problem's running beams may still beat its finished ones, bool[problems]."""
    best = running.logprob[:, 0]
    hoped_for = best / length.astype(jnp.float32) ** config.length_penalty
    worst = jnp.min(finished.score, axis=1)  # −inf until `width` beams have finished
    alive = ~jnp.isneginf(best)
    return alive & (jnp.isneginf(worst) if config.early_stopping else hoped_for > worst)


def _merge(beams: _Beams, more: _Beams, config: BeamSearchConfig) -> _Beams:
    """The best `width` of two sets, by score."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), beams, more)
    _, index = jax.lax.top_k(both.score, config.width)
    return _gather(both, index)


def _gather(beams: _Beams, index: Array) -> _Beams:
    """Beams by index i32[problems, n]."""
    problem = jnp.arange(index.shape[0])[:, None]
    return jax.tree.map(lambda field: field[problem, index], beams)


def _keep_where(beams: _Beams, keep: Array) -> _Beams:
    """Beams with −inf scores where not kept."""
    return beams._replace(
        logprob=jnp.where(keep, beams.logprob, -jnp.inf),
        score=jnp.where(keep, beams.score, -jnp.inf),
    )


def _no_beams(problems: int, config: BeamSearchConfig) -> _Beams:
    shape = (problems, config.width)
    return _Beams(
        tokens=jnp.full((*shape, config.max_new_tokens), NO_TOKEN, jnp.int32),
        length=jnp.zeros(shape, jnp.int32),
        logprob=jnp.full(shape, -jnp.inf, jnp.float32),
        score=jnp.full(shape, -jnp.inf, jnp.float32),
    )
