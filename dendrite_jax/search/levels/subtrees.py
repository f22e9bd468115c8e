"""Diverse verifier tree search, as in Hugging Face's search-and-learn (Beeching et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search.levels.config import Level, LevelsLoop
from dendrite_jax.search.levels.keep import keep_best_of_subtrees
from dendrite_jax.search.levels.loop import search_levels
from dendrite_jax.search.levels.share import share_by_subtree
from dendrite_jax.search.levels.step_beams import StepBeamConfig
from dendrite_jax.search.protocol import Pieces
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score.scored import mean_loglikelihood
from dendrite_jax.search.select import Select
from dendrite_jax.search.session import AnyScorer
from dendrite_jax.search.thoughts import Expand


@dataclass(frozen=True)
class DVTSConfig(StepBeamConfig):
    """Static shape of the search: n / beam_width subtrees; fields as in `StepBeamConfig`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge:
            raise ValueError("merge is True; it must be False, the subtrees are independent")

    def share(self, loop: LevelsLoop) -> Array:
        return share_by_subtree(loop, self.n, self.beam_width)

    def keep(self, level: Level, select: Select) -> Array:
        del select
        return keep_best_of_subtrees(level, self.beam_width)

    def record(self, loop: LevelsLoop, level: Level) -> tuple[Array, Array]:
        """Records the steps of the last iteration of each subtree that had a usable one."""
        usable = ~jnp.isneginf(level.value)
        subtrees = usable.reshape(*usable.shape[:1], -1, self.beam_width)
        grown = jnp.repeat(jnp.any(subtrees, axis=2), self.beam_width, axis=1)
        answers = jnp.where(grown, level.nodes, loop.answers)
        return answers, jnp.where(grown, level.value, loop.values)


def dvts(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: DVTSConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    commit: Array | None = None,
    last: Expand | None = None,
) -> tuple[State, SearchResult]:
    """Grows n / beam_width subtrees, each by beam_width steps of which it goes on with the best.

    A subtree ends when its best step is an answer, when none is usable, or after all iterations.
    As in the original, all steps of its last iteration are answers, also those beside the best that
    would have gone on (`tree.terminal` tells them apart).

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      expand: makes steps, such as `SampleThoughts`; one that is not complete is dropped. A
        `SampleThoughts` where the search looks ahead.
      score: judges complete steps.
      commit: i32[n], tokens appended to a kept step before it is expanded; none when None.
      last: makes the last iteration's steps instead, such as one up to the end of the text.

    Returns:
      The state, with every branch but the roots freed, and up to n answers. A step that runs out of
      blocks or slots is dropped; what was found before is kept.
    """
    pieces = Pieces(expand, score, commit=commit, last=last)
    return search_levels(model, pieces, state, roots, key, config)
