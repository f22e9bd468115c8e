"""Searches: pure functions over the engine, batched over problems."""

from dendrite_jax.search.beam_search import BeamSearchConfig, beam_search
from dendrite_jax.search.best_of_n import BestOfNConfig, best_of_n
from dendrite_jax.search.branches import AnyScorer, StatefulScorer
from dendrite_jax.search.depth_first import DepthFirstConfig, depth_first
from dendrite_jax.search.dvts import DVTSConfig, dvts
from dendrite_jax.search.expand import Expand, SampleThoughts, Thoughts
from dendrite_jax.search.mcts import Gumbel, MctsConfig, Puct, Uct, mcts
from dendrite_jax.search.readout import (
    SURE_LIKELY_IMPOSSIBLE,
    Readout,
    ValueHead,
    ValueTokens,
)
from dendrite_jax.search.rebase import RebaseConfig, rebase
from dendrite_jax.search.report import path_tokens
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.reward_model import RewardModel
from dendrite_jax.search.sample import SampleConfig, greedy, sample
from dendrite_jax.search.scoring import (
    AnswerTokens,
    RandomValues,
    Scored,
    Scorer,
    mean_loglikelihood,
    path_key,
    revalue,
    sum_loglikelihood,
    thought_key,
    usable_value,
)
from dendrite_jax.search.select import Select, best_first
from dendrite_jax.search.step_beam import StepBeamConfig, step_beam
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree
from dendrite_jax.search.tree_of_thoughts import TreeOfThoughtsConfig, tree_of_thoughts
from dendrite_jax.search.vote import Vote, vote

__all__ = [
    "NO_NODE",
    "ROOT",
    "SURE_LIKELY_IMPOSSIBLE",
    "AnswerTokens",
    "AnyScorer",
    "BeamSearchConfig",
    "BestOfNConfig",
    "DVTSConfig",
    "DepthFirstConfig",
    "Expand",
    "Gumbel",
    "MctsConfig",
    "Puct",
    "RandomValues",
    "Readout",
    "RebaseConfig",
    "RewardModel",
    "SampleConfig",
    "SampleThoughts",
    "Scored",
    "Scorer",
    "SearchResult",
    "SearchTree",
    "Select",
    "StatefulScorer",
    "StepBeamConfig",
    "Thoughts",
    "TreeOfThoughtsConfig",
    "Uct",
    "ValueHead",
    "ValueTokens",
    "Vote",
    "beam_search",
    "best_first",
    "best_of_n",
    "depth_first",
    "dvts",
    "greedy",
    "mcts",
    "mean_loglikelihood",
    "path_key",
    "path_tokens",
    "rebase",
    "revalue",
    "sample",
    "step_beam",
    "sum_loglikelihood",
    "thought_key",
    "tree_of_thoughts",
    "usable_value",
    "vote",
]
