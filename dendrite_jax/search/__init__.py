"""Searches: pure functions over the engine, batched over problems."""

from dendrite_jax.search.backtracking import DepthFirstConfig, depth_first
from dendrite_jax.search.beam import BeamSearchConfig, beam_search
from dendrite_jax.search.levels import (
    BestOfNConfig,
    DVTSConfig,
    RebaseConfig,
    SampleConfig,
    StepBeamConfig,
    TreeOfThoughtsConfig,
    best_of_n,
    dvts,
    greedy,
    rebase,
    sample,
    step_beam,
    tree_of_thoughts,
)
from dendrite_jax.search.monte_carlo import Gumbel, MctsConfig, Puct, Uct, mcts
from dendrite_jax.search.outcome import OUTCOME_NAMES
from dendrite_jax.search.piece import Piece
from dendrite_jax.search.protocol import Pieces
from dendrite_jax.search.report import explain, path_tokens
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score import (
    SURE_LIKELY_IMPOSSIBLE,
    AnswerTokens,
    RandomValues,
    Readout,
    RewardModel,
    Scored,
    Scorer,
    ValueHead,
    ValueTokens,
    Vote,
    mean_loglikelihood,
    path_key,
    revalue,
    sum_loglikelihood,
    thought_key,
    usable_value,
    vote,
)
from dendrite_jax.search.select import Select, best_first
from dendrite_jax.search.session import AnyScorer, Session, StatefulScorer
from dendrite_jax.search.thoughts import Expand, SampleThoughts, Thoughts
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree

__all__ = [
    "NO_NODE",
    "OUTCOME_NAMES",
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
    "Piece",
    "Pieces",
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
    "Session",
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
    "explain",
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
