"""Reward-balanced search (REBASE, Wu et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.levels.aggregation import Aggregate, check_aggregate
from dendrite_jax.search.levels.config import Level, LevelsConfig, LevelsLoop
from dendrite_jax.search.levels.keep import keep_selected
from dendrite_jax.search.levels.loop import search_levels
from dendrite_jax.search.levels.share import share_by_softmax
from dendrite_jax.search.protocol import Pieces
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score.scored import mean_loglikelihood
from dendrite_jax.search.select import Select
from dendrite_jax.search.session import AnyScorer
from dendrite_jax.search.thoughts import Expand


@dataclass(frozen=True)
class RebaseConfig(LevelsConfig):
    """Static shape of the search.

    Attributes:
      width: thoughts sampled at each level, less one for each answer found so far.
      depth: levels.
      temperature: of the softmax that shares the width out; the paper takes 0.2 for rewards in
        [0, 1]. 1 for log-probabilities shares by probability.
      aggregate: how an answer's value comes from those of its thoughts.
    """

    width: int = 16
    depth: int = 10
    temperature: float = 0.2
    aggregate: Aggregate = "last"

    def __post_init__(self) -> None:
        check_positive(self, "width", "depth")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}; it must be positive and finite")
        check_aggregate(self.aggregate)

    @property
    def kept(self) -> int:
        return self.width

    @property
    def proposals(self) -> int:
        return self.width

    @property
    def num_answers(self) -> int:
        return self.width

    def share(self, loop: LevelsLoop) -> Array:
        return share_by_softmax(loop, self.width, self.temperature)

    def keep(self, level: Level, select: Select) -> Array:
        return keep_selected(level, select, self.width)


def rebase(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: RebaseConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    commit: Array | None = None,
) -> tuple[State, SearchResult]:
    """Keeps every thought that goes on, and gives it children by the softmax of its value.

    How the width is rounded is in `share.share_by_softmax`.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      expand: makes thoughts, such as `SampleThoughts`; one that is not complete is dropped.
      score: judges complete thoughts.
      commit: i32[n], tokens appended to a thought before it is expanded; none when None.

    Returns:
      The state, with every branch but the roots freed, and up to `width` answers. A thought that
      runs out of blocks or slots is dropped; what was found before is kept.
    """
    pieces = Pieces(expand, score, commit=commit)
    return search_levels(model, pieces, state, roots, key, config)
