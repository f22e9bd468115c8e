"""Searches level by level: what differs between them is a config's choices (`LevelsConfig`)."""

from dendrite_jax.search.levels.aggregation import Aggregate
from dendrite_jax.search.levels.breadth_first import TreeOfThoughtsConfig, tree_of_thoughts
from dendrite_jax.search.levels.chains import (
    BestOfNConfig,
    SampleConfig,
    best_of_n,
    greedy,
    sample,
)
from dendrite_jax.search.levels.config import Level, LevelsConfig, LevelsLoop
from dendrite_jax.search.levels.reward_balanced import RebaseConfig, rebase
from dendrite_jax.search.levels.step_beams import StepBeamConfig, step_beam
from dendrite_jax.search.levels.subtrees import DVTSConfig, dvts

__all__ = [
    "Aggregate",
    "BestOfNConfig",
    "DVTSConfig",
    "Level",
    "LevelsConfig",
    "LevelsLoop",
    "RebaseConfig",
    "SampleConfig",
    "StepBeamConfig",
    "TreeOfThoughtsConfig",
    "best_of_n",
    "dvts",
    "greedy",
    "rebase",
    "sample",
    "step_beam",
    "tree_of_thoughts",
]
