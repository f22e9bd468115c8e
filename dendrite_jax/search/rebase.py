"""Reward-balanced search (REBASE, Wu et al. 2024)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search import levels
from dendrite_jax.search.aggregate import Aggregate, check_aggregate
from dendrite_jax.search.branches import AnyScorer
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.expand import Expand
from dendrite_jax.search.keep import growing
from dendrite_jax.search.levels import LevelSizes, Rules
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.scoring import mean_loglikelihood
from dendrite_jax.search.select import best_first
from dendrite_jax.search.share import softmax_balanced


@dataclass(frozen=True)
class RebaseConfig(LevelSizes):
    """Static shape of the search.

    Attributes:
      width: steps sampled at each level, less one for each answer found so far.
      depth: levels.
      temperature: of the softmax that shares the width out; the paper takes 0.2 for rewards in
        [0, 1]. 1 for log-probabilities shares by probability.
      aggregate: how an answer's value comes from those of its steps.
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
    """Keeps every step that goes on, and gives it children by the softmax of its value.

    How the width is rounded is in `share.softmax_balanced`.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      expand: makes steps, such as `SampleThoughts`; one that is not complete is dropped.
      score: judges complete steps.
      commit: i32[n], tokens appended to a step before it is expanded; none when None.

    Returns:
      The state, with every branch but the roots freed, and up to `width` answers. A step that runs
      out of blocks or slots is dropped; what was found before is kept.
    """
    rules = Rules(
        share=softmax_balanced(config.width, config.temperature),
        keep=growing(best_first, config.width),
        aggregate=config.aggregate,
    )
    return levels.search(
        model, state, roots, key, config, rules, expand=expand, score=score, commit=commit
    )
