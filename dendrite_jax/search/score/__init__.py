"""Judging thoughts: likelihoods, readouts of a hidden state, reward models, votes among answers."""

from dendrite_jax.search.score.readout import (
    SURE_LIKELY_IMPOSSIBLE,
    Readout,
    ValueHead,
    ValueTokens,
)
from dendrite_jax.search.score.reward_model import RewardModel
from dendrite_jax.search.score.scored import (
    AnswerTokens,
    RandomValues,
    Scored,
    Scorer,
    SumLoglikelihood,
    mean_loglikelihood,
    path_key,
    revalue,
    sum_loglikelihood,
    thought_key,
    usable_value,
)
from dendrite_jax.search.score.voting import Vote, vote

__all__ = [
    "SURE_LIKELY_IMPOSSIBLE",
    "AnswerTokens",
    "RandomValues",
    "Readout",
    "RewardModel",
    "Scored",
    "Scorer",
    "SumLoglikelihood",
    "ValueHead",
    "ValueTokens",
    "Vote",
    "mean_loglikelihood",
    "path_key",
    "revalue",
    "sum_loglikelihood",
    "thought_key",
    "usable_value",
    "vote",
]
