"""Valuing a thought by where the likeliest continuation leads, as search-and-learn does."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import GREEDY, Model
from dendrite_jax.search import branches as held_branches
from dendrite_jax.search.aggregate import Aggregate, aggregate
from dendrite_jax.search.branches import AnyScorer, Branches
from dendrite_jax.search.expand import SampleThoughts, Thoughts
from dendrite_jax.search.scoring import usable_value


def look_ahead(
    model: Model,
    held: Branches,
    thoughts: Thoughts,
    value: Array,
    steps: int,
    how: Aggregate,
    *,
    expand: SampleThoughts,
    score: AnyScorer,
) -> tuple[Branches, Array]:
    """Values f32[lanes] of paths that go on greedily for up to `steps` thoughts.

    Args:
      model: the model.
      held: the branches.
      thoughts: where to look on from; a negative branch is not looked on from.
      value: f32[lanes], of the paths so far.
      steps: thoughts to look ahead; fewer where one is an answer, is rejected or is not complete.
      how: aggregates a path's values.
      expand: makes the thoughts; its sampling is not used.
      score: judges them.

    Returns:
      The branches as before, and the values.
    """
    greedy = expand.replace(sampling=GREEDY)
    held, ahead = held_branches.fork(score, held, thoughts.branch)

    def step(_: Array, carry: tuple[Branches, Array, Array]) -> tuple[Branches, Array, Array]:
        held, value, running = carry
        state, grown = greedy(model, held.state, running, thoughts.parent)
        held, scored = held_branches.score(score, model, held.replace(state=state), grown)
        own = usable_value(scored, grown)
        usable = ~jnp.isneginf(own)
        value = jnp.where(usable, aggregate(how, value, own), value)
        return held, value, jnp.where(usable & ~scored.answer, running, -1)

    held, value, _ = jax.lax.fori_loop(0, steps, step, (held, value, ahead))
    return held_branches.free(score, held, ahead), value
