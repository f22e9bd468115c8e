"""Tree of thoughts, breadth first (Yao et al. 2023), batched over problems."""

from __future__ import annotations

from dataclasses import dataclass

from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search import levels
from dendrite_jax.search.branches import AnyScorer
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.expand import Expand
from dendrite_jax.search.keep import growing
from dendrite_jax.search.levels import LevelSizes, Rules
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.scoring import mean_loglikelihood
from dendrite_jax.search.select import Select, best_first
from dendrite_jax.search.share import evenly


@dataclass(frozen=True)
class TreeOfThoughtsConfig(LevelSizes):
    """Static shape of the search.

    Attributes:
      breadth: thoughts kept at each level.
      proposals: thoughts sampled at each level, shared out evenly among those kept before.
      depth: levels.
    """

    breadth: int = 5
    proposals: int = 40
    depth: int = 3

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
    return levels.search(
        model,
        state,
        roots,
        key,
        config,
        rules(config, select),
        expand=expand,
        score=score,
        commit=commit,
    )


def rules(config: TreeOfThoughtsConfig, select: Select = best_first) -> Rules:
    """The rules of this search, for a caller who runs it level by level (see `levels`)."""
    return Rules(share=evenly(config.proposals), keep=growing(select, config.breadth), merge=True)
