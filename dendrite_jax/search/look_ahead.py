"""Valuing a thought by where the likeliest continuation leads, as search-and-learn does."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import GREEDY, Model
from dendrite_jax.search import branches as held_branches
from dendrite_jax.search.aggregate import Aggregate, aggregate
from dendrite_jax.search.branches import AnyScorer, Branches
from dendrite_jax.search.expand import Expand, SampleThoughts, Thoughts
from dendrite_jax.search.scoring import usable_value


class _Looking(NamedTuple):
    held: Branches
    value: Array  # f32[lanes]
    running: Array  # i32[lanes], negative for a lane that has stopped looking
    cut: Array  # bool[lanes]


def look_ahead(
    model: Model,
    held: Branches,
    thoughts: Thoughts,
    value: Array,
    steps: int,
    how: Aggregate,
    *,
    expand: Expand,
    score: AnyScorer,
    commit: Array | None = None,
) -> tuple[Branches, Array, Array]:
    """Values f32[lanes] of paths that go on greedily for up to `steps` thoughts.

    Args:
      model: the model.
      held: the branches.
      thoughts: where to look on from; a negative branch is not looked on from.
      value: f32[lanes], of the paths so far.
      steps: thoughts to look ahead; fewer where one is an answer, is rejected or is not complete.
      how: aggregates a path's values.
      expand: a `SampleThoughts`, whose sampling is not used.
      score: judges them.
      commit: i32[n], tokens appended to a thought before the next one; none when None.

    Returns:
      The branches as before, the values, and the bool[lanes] that could not look as far as they
      wanted for want of room.

    Raises:
      ValueError: another `expand`, which could not be made greedy.
    """
    if not isinstance(expand, SampleThoughts):
        raise ValueError(
            f"lookahead is {steps}; it needs expand to be a SampleThoughts, not {expand!r}"
        )
    greedy = expand.replace(sampling=GREEDY)
    held, ahead = held_branches.fork(score, held, thoughts.branch)

    def step(_: Array, carry: _Looking) -> _Looking:
        held = carry.held
        if commit is not None:
            held, _ = held_branches.append(score, model, held, carry.running, commit)
        state, grown = greedy(model, held.state, carry.running, thoughts.parent)
        held, scored = held_branches.score(score, model, held.replace(state=state), grown)
        own = usable_value(scored, grown)
        usable = ~jnp.isneginf(own)
        return _Looking(
            held=held,
            value=jnp.where(usable, aggregate(how, carry.value, own), carry.value),
            running=jnp.where(usable & ~scored.answer, carry.running, -1),
            cut=carry.cut | grown.failed | scored.short,
        )

    refused = (thoughts.branch >= 0) & (ahead < 0)
    end = jax.lax.fori_loop(0, steps, step, _Looking(held, value, ahead, refused))
    return held_branches.free(score, end.held, ahead), end.value, end.cut
