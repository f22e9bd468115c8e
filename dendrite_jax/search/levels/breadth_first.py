"""Tree of thoughts, breadth first (Yao et al. 2023), batched over problems."""

from __future__ import annotations

from dataclasses import dataclass

from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.levels.config import Level, LevelsConfig, LevelsLoop
from dendrite_jax.search.levels.keep import keep_selected
from dendrite_jax.search.levels.loop import search_levels
from dendrite_jax.search.levels.share import share_evenly
from dendrite_jax.search.protocol import Pieces
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score.scored import mean_loglikelihood
from dendrite_jax.search.select import Select, best_first
from dendrite_jax.search.session import AnyScorer
from dendrite_jax.search.thoughts import Expand


@dataclass(frozen=True)
class TreeOfThoughtsConfig(LevelsConfig):
    """Static shape of the search.

    Attributes:
      breadth: thoughts kept at each level.
      proposals: thoughts sampled at each level, shared out evenly among those kept before.
      depth: levels.
    """

    breadth: int = 5
    proposals: int = 40
    depth: int = 3

    merge = True

    def __post_init__(self) -> None:
        check_positive(self, "breadth", "proposals", "depth")
        if self.proposals < self.breadth:
            raise ValueError(
                f"proposals is {self.proposals}; it must be at least the breadth, {self.breadth}"
            )

    @property
    def kept(self) -> int:
        return self.breadth

    @property
    def num_answers(self) -> int:
        return self.breadth

    def share(self, loop: LevelsLoop) -> Array:
        return share_evenly(loop, self.proposals)

    def keep(self, level: Level, select: Select) -> Array:
        return keep_selected(level, select, self.breadth)


def tree_of_thoughts(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: TreeOfThoughtsConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    select: Select = best_first,
    commit: Array | None = None,
) -> tuple[State, SearchResult]:
    """Searches every problem at once, level by level.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      expand: makes thoughts, such as `SampleThoughts`; one that is not complete is dropped.
      score: judges complete thoughts.
      select: which thoughts of a level are kept.
      commit: i32[n], tokens appended to a kept thought before it is expanded; none when None.

    Returns:
      The state, with every branch but the roots freed, and the result. A thought that runs out of
      blocks or slots is dropped; what was found before is kept.
    """
    pieces = Pieces(expand, score, select, commit)
    return search_levels(model, pieces, state, roots, key, config)
