"""Plain sampling: the baseline that a search has to beat."""

from __future__ import annotations

from dataclasses import dataclass

from jax import Array

from dendrite_jax.engine import GREEDY, Model, State
from dendrite_jax.search import levels
from dendrite_jax.search.branches import AnyScorer
from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.expand import Expand, SampleThoughts
from dendrite_jax.search.keep import best_of_subtrees
from dendrite_jax.search.levels import LevelSizes, Rules
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.scoring import mean_loglikelihood
from dendrite_jax.search.share import by_subtree


@dataclass(frozen=True)
class SampleConfig(LevelSizes):
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
    return levels.search(
        model, state, roots, key, config, rules(config), expand=expand, score=score, commit=commit
    )


def rules(config: SampleConfig) -> Rules:
    """The rules of chains, for a caller who grows them level by level (see `levels`)."""
    return Rules(share=by_subtree(config.n, 1), keep=best_of_subtrees(1))


def greedy(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: SampleConfig,
    *,
    expand: SampleThoughts,
    score: AnyScorer = mean_loglikelihood,
    commit: Array | None = None,
) -> tuple[State, SearchResult]:
    """`sample` by the likeliest token always; `expand.sampling` is not used.

    Raises:
      ValueError: more than one sample, which would all be the same.
    """
    if config.n != 1:
        raise ValueError(f"n is {config.n}; it must be 1, all greedy samples are the same")
    likeliest = expand.replace(sampling=GREEDY)
    return sample(model, state, roots, key, config, expand=likeliest, score=score, commit=commit)
