"""Plain sampling, the baselines that a search has to beat: greedy, sample and best of n."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jax import Array

from dendrite_jax.engine import GREEDY, Model, State
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.levels.config import Level, LevelsConfig, LevelsLoop
from dendrite_jax.search.levels.keep import keep_best_of_subtrees
from dendrite_jax.search.levels.loop import search_levels
from dendrite_jax.search.levels.share import share_by_subtree
from dendrite_jax.search.protocol import Pieces
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score.scored import mean_loglikelihood
from dendrite_jax.search.score.voting import Vote, check_vote, vote
from dendrite_jax.search.select import Select
from dendrite_jax.search.session import AnyScorer
from dendrite_jax.search.thoughts import Expand, SampleThoughts


@dataclass(frozen=True)
class SampleConfig(LevelsConfig):
    """Static shape of the samples.

    Attributes:
      n: independent samples a problem.
      depth: thoughts of a sample; 1 for one long thought.
    """

    n: int = 1
    depth: int = 1

    def __post_init__(self) -> None:
        check_positive(self, "n", "depth")

    @property
    def kept(self) -> int:
        return self.n

    @property
    def proposals(self) -> int:
        return self.n

    @property
    def num_answers(self) -> int:
        return self.n

    def share(self, loop: LevelsLoop) -> Array:
        return share_by_subtree(loop, self.n, 1)

    def keep(self, level: Level, select: Select) -> Array:
        del select
        return keep_best_of_subtrees(level, 1)


@dataclass(frozen=True)
class BestOfNConfig(SampleConfig):
    """Static shape of the samples, and the vote among them.

    Attributes:
      n: independent samples a problem.
      depth: thoughts of a sample; 1 for one long thought.
      vote: what samples with one answer are worth together (see `Vote`).
    """

    n: int = 16
    vote: Vote = "weighted"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_vote(self.vote)

    def rank(self, result: SearchResult) -> SearchResult:
        return vote(result, self.vote)


def greedy(
    model: Model,
    state: State,
    roots: Array,
    key: Array | None,
    config: SampleConfig,
    *,
    expand: SampleThoughts,
    score: AnyScorer = mean_loglikelihood,
    commit: Array | None = None,
) -> tuple[State, SearchResult]:
    """`sample` by the likeliest token always; `expand.sampling` is not used.

    The key may be None: nothing is drawn.

    Raises:
      ValueError: more than one sample, which would all be the same.
    """
    if config.n != 1:
        raise ValueError(f"n is {config.n}; it must be 1, all greedy samples are the same")
    key = jax.random.key(0) if key is None else key
    pieces = Pieces(expand.replace(sampling=GREEDY), score, commit=commit)
    return search_levels(model, pieces, state, roots, key, config)


def sample(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: SampleConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    commit: Array | None = None,
) -> tuple[State, SearchResult]:
    """Samples chains of thoughts after each root, each on its own.

    A chain ends with a thought that the scorer calls an answer, or after `config.depth` of them;
    one with a thought that is rejected or not complete gives no answer.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's samples depend on its own key only.
      config: static shape of the samples.
      expand: makes thoughts, such as `SampleThoughts`.
      score: judges complete thoughts; a chain's value is that of its last one.
      commit: i32[n], tokens appended to a thought before the next one; none when None.

    Returns:
      The state, with every branch but the roots freed, and the samples, the best value first.
    """
    pieces = Pieces(expand, score, commit=commit)
    return search_levels(model, pieces, state, roots, key, config)


def best_of_n(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: BestOfNConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    commit: Array | None = None,
) -> tuple[State, SearchResult]:
    """Samples n chains of thoughts after each root and ranks the different answers they end with.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's samples depend on its own key only.
      config: static shape of the samples, and the vote.
      expand: makes thoughts, such as `SampleThoughts`.
      score: judges complete thoughts. Chains whose last thoughts have equal merge keys have one
        answer: a task's scorer gives a key of the answer (that of the shipped ones is of the whole
        text).
      commit: i32[n], tokens appended to a thought before the next one; none when None.

    Returns:
      The state, with every branch but the roots freed, and the result: of each answer the best
      sample, and in `values` what its vote came to. Ties go to the better value, then to the
      sample made first.
    """
    pieces = Pieces(expand, score, commit=commit)
    return search_levels(model, pieces, state, roots, key, config)
