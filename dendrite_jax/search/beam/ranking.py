"""Ranking the continuations of beams, a group of a problem after the other."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import engine
from dendrite_jax.engine import Model, State
from dendrite_jax.search.beam.config import BeamSearchConfig
from dendrite_jax.search.tree import NO_NODE


class Beams(NamedTuple):
    """Beams of each group; a row is a group of a problem."""

    node: Array  # i32[rows, beams], NO_NODE for none
    logprob: Array  # f32[rows, beams], less the diversity penalties; −inf for none
    score: Array  # f32[rows, beams], logprob under the length penalty; −inf for none


class Ranked(NamedTuple):
    """The best continuations of each group, best first."""

    parent: Array  # i32[rows, ranked], beams
    token: Array  # i32[rows, ranked]
    raw_logprob: Array  # f32[rows, ranked], of the token
    logprob: Array  # f32[rows, ranked], of the beam; −inf for none
    stops: Array  # bool[rows, ranked], the token ends its beam


def rank_continuations(
    model: Model,
    state: State,
    running: Beams,
    branches: Array,
    searching: Array,
    length: Array,
    config: BeamSearchConfig,
    stop_tokens: Array | None,
) -> tuple[Ranked, Array]:
    """The best continuations of each group, and the i32[rows, beams] of them that run on.

    The groups of a problem choose one after the other, each knowing what those before it took.

    Args:
      model: the model.
      state: the engine state.
      running: the beams to go on from.
      branches: i32[rows, beams], theirs.
      searching: bool[rows], which groups go on.
      length: i32[], of the beams after this token step.
      config: static shape of the search.
      stop_tokens: i32[n], or None.
    """
    rows, beams = branches.shape
    problems = rows // config.groups
    num_ranked = ranked_per_beam(stop_tokens) * beams
    ids = branches.reshape(-1)
    raw = jax.nn.log_softmax(engine.next_logits(model, state, ids))
    allowed = engine.mask_logits(state, ids, raw)
    vocab = raw.shape[-1]
    problem = jnp.arange(problems)[:, None]
    last = length == config.max_new_tokens

    def choose(taken: Array, group: tuple[Array, ...]) -> tuple[Array, tuple[Ranked, Array]]:
        raw, allowed, before, branches, searching = group
        total = allowed - config.diversity_penalty * taken[:, None] + before[..., None]
        total = jnp.where(searching[:, None, None], total, -jnp.inf)
        logprob, index = jax.lax.top_k(total.reshape(problems, -1), num_ranked)
        parent, token = jnp.divmod(index, vocab)
        branch = jnp.take_along_axis(branches, parent, axis=1)
        stops = engine.ends_text(state, branch, token) | last
        if stop_tokens is not None:
            stops |= jnp.any(token[..., None] == stop_tokens, axis=-1)
        runs_on, chosen = jax.lax.top_k(jnp.where(stops, -jnp.inf, logprob), beams)
        next_token = jnp.take_along_axis(token, chosen, axis=1)
        taken = taken.at[problem, next_token].add(~jnp.isneginf(runs_on))
        ranked = Ranked(parent, token, raw[problem, parent, token], logprob, stops)
        return taken, (ranked, chosen)

    def by_group(field: Array) -> Array:
        return jnp.moveaxis(field.reshape(problems, config.groups, *field.shape[1:]), 1, 0)

    def by_row(field: Array) -> Array:
        return jnp.moveaxis(field, 0, 1).reshape(rows, *field.shape[2:])

    groups = (
        raw.reshape(rows, beams, vocab),
        allowed.reshape(rows, beams, vocab),
        running.logprob,
        branches,
        searching,
    )
    nothing_taken = jnp.zeros((problems, vocab), jnp.float32)
    _, chosen = jax.lax.scan(choose, nothing_taken, jax.tree.map(by_group, groups))
    return jax.tree.map(by_row, chosen)


def merge(beams: Beams, more: Beams) -> Beams:
    """The best of two sets by score, as many as the first has."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), beams, more)
    _, index = jax.lax.top_k(both.score, beams.score.shape[1])
    return jax.tree.map(lambda field: jnp.take_along_axis(field, index, axis=1), both)


def keep_where(beams: Beams, keep: Array) -> Beams:
    """Beams, of which those not kept are none."""
    return Beams(
        node=jnp.where(keep, beams.node, NO_NODE),
        logprob=jnp.where(keep, beams.logprob, -jnp.inf),
        score=jnp.where(keep, beams.score, -jnp.inf),
    )


def ranked_per_beam(stop_tokens: Array | None) -> int:
    """Continuations that are ranked for each beam: so many that one of them runs on."""
    return 2 if stop_tokens is None else max(2, 1 + stop_tokens.shape[0])
