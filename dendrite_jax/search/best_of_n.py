"""Best of n: sample n times and let the answers be voted on."""

from __future__ import annotations

from dataclasses import dataclass

from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search.branches import AnyScorer
from dendrite_jax.search.expand import Expand
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.sample import SampleConfig, sample
from dendrite_jax.search.scoring import mean_loglikelihood
from dendrite_jax.search.vote import Vote, check_vote, vote


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
    state, result = sample(
        model, state, roots, key, config, expand=expand, score=score, commit=commit
    )
    return state, vote(result, config.vote)
