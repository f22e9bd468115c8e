"""Beam search over steps, as in Hugging Face's search-and-learn (Beeching et al. 2024)."""

from __future__ import annotations

from dataclasses import dataclass

from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.levels.aggregation import Aggregate, check_aggregate
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
class StepBeamConfig(LevelsConfig):
    """Static shape of the search, in the words of search-and-learn: a step is a thought.

    Attributes:
      n: steps sampled at each iteration.
      beam_width: how many of them grow from each step kept before, so that n / beam_width are kept.
      iterations: steps of the longest path.
      lookahead: greedy steps that a step's value looks ahead.
      aggregate: how a path's value comes from those of its steps; "sum" of log-probabilities is a
        beam search by the probability of the whole path.
      merge: steps of one iteration with equal merge keys are one step.
    """

    n: int = 16
    beam_width: int = 4
    iterations: int = 10
    lookahead: int = 0
    aggregate: Aggregate = "last"
    merge: bool = False

    def __post_init__(self) -> None:
        check_positive(self, "n", "beam_width", "iterations")
        if self.n % self.beam_width:
            raise ValueError(
                f"n is {self.n}; it must be a multiple of beam_width, {self.beam_width}"
            )
        if self.lookahead < 0:
            raise ValueError(f"lookahead is {self.lookahead}; it must be at least 0")
        check_aggregate(self.aggregate)

    @property
    def kept(self) -> int:
        return self.n // self.beam_width

    @property
    def proposals(self) -> int:
        return self.n

    @property
    def depth(self) -> int:
        return self.iterations

    @property
    def num_answers(self) -> int:
        return self.n

    def share(self, loop: LevelsLoop) -> Array:
        return share_evenly(loop, self.n)

    def keep(self, level: Level, select: Select) -> Array:
        return keep_selected(level, select, self.kept)


def step_beam(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: StepBeamConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    select: Select = best_first,
    commit: Array | None = None,
    last: Expand | None = None,
) -> tuple[State, SearchResult]:
    """Grows the kept paths by n steps in all, and keeps the n / beam_width best that go on.

    A path whose step is an answer (by the scorer, see `AnswerTokens`) or the last one is done; it
    is not among those that are grown or kept.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      expand: makes steps, such as `SampleThoughts`; one that is not complete is dropped. A
        `SampleThoughts` where the search looks ahead.
      score: judges complete steps.
      select: which paths are kept, by their values.
      commit: i32[n], tokens appended to a kept step before it is expanded; none when None.
      last: makes the last iteration's steps instead, such as one up to the end of the text.

    Returns:
      The state, with every branch but the roots freed, and up to n paths that are done. A step that
      runs out of blocks or slots is dropped; what was found before is kept.
    """
    pieces = Pieces(expand, score, select, commit, last)
    return search_levels(model, pieces, state, roots, key, config)
