"""Valuing a thought by where the likeliest continuation leads, as search-and-learn does."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache import NO_BRANCH
from dendrite_jax.engine import GREEDY, Model
from dendrite_jax.search.levels.aggregation import aggregate
from dendrite_jax.search.levels.config import LevelsConfig
from dendrite_jax.search.protocol import Pieces
from dendrite_jax.search.score.scored import usable_value
from dendrite_jax.search.session import Session
from dendrite_jax.search.thoughts import SampleThoughts, Thoughts


class _Looking(NamedTuple):
    session: Session
    value: Array  # f32[lanes]
    running: Array  # i32[lanes], NO_BRANCH for a lane that has stopped looking
    cut: Array  # bool[lanes]


def look_ahead(
    model: Model,
    pieces: Pieces,
    session: Session,
    thoughts: Thoughts,
    value: Array,
    config: LevelsConfig,
) -> tuple[Session, Array, Array]:
    """Values f32[lanes] of paths that go on greedily for up to `config.lookahead` thoughts.

    Fewer where a thought is an answer, is rejected or is not complete.

    Args:
      model: the model.
      pieces: of the search; its `expand` is a `SampleThoughts`, whose sampling is not used.
      session: of the search.
      thoughts: where to look on from; NO_BRANCH is not looked on from.
      value: f32[lanes], of the paths so far.
      config: says how far, and how a path's values are aggregated.

    Returns:
      The session with its branches as before, the values, and the bool[lanes] that could not look
      as far as they wanted for want of room.

    Raises:
      ValueError: another `expand`, which could not be made greedy.
    """
    expand, score = pieces.expand, pieces.score
    if not isinstance(expand, SampleThoughts):
        raise ValueError(
            f"lookahead is {config.lookahead}; it needs expand to be a SampleThoughts, "
            f"not {expand!r}"
        )
    greedy = expand.replace(sampling=GREEDY)
    session, ahead = session.fork(score, thoughts.branch)

    def further(_: Array, carry: _Looking) -> _Looking:
        session = carry.session
        if pieces.commit is not None:
            session, _ = session.append(score, model, carry.running, pieces.commit)
        state, grown = greedy(model, session.state, carry.running, thoughts.parent)
        session, scored = session.replace(state=state).score(score, model, grown)
        own = usable_value(scored, grown)
        usable = ~jnp.isneginf(own)
        onward = aggregate(config.aggregate, carry.value, own)
        return _Looking(
            session=session,
            value=jnp.where(usable, onward, carry.value),
            running=jnp.where(usable & ~scored.answer, carry.running, NO_BRANCH),
            cut=carry.cut | grown.failed | scored.short,
        )

    refused = (thoughts.branch >= 0) & (ahead < 0)
    end = jax.lax.fori_loop(0, config.lookahead, further, _Looking(session, value, ahead, refused))
    return end.session.free(score, ahead), end.value, end.cut
