"""Searches: pure functions over the engine, batched over problems."""

from dendrite_jax.search.beam_search import BeamSearchConfig, BeamSearchResult, beam_search
from dendrite_jax.search.report import path_tokens
from dendrite_jax.search.scoring import (
    RandomValues,
    Scored,
    Scorer,
    Thoughts,
    ValueTokens,
    mean_loglikelihood,
    path_key,
    thought_key,
)
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree
from dendrite_jax.search.tree_of_thoughts import (
    TreeOfThoughtsConfig,
    TreeOfThoughtsResult,
    tree_of_thoughts,
)

__all__ = [
    "NO_NODE",
    "ROOT",
    "BeamSearchConfig",
    "BeamSearchResult",
    "RandomValues",
    "Scored",
    "Scorer",
    "SearchTree",
    "Thoughts",
    "TreeOfThoughtsConfig",
    "TreeOfThoughtsResult",
    "ValueTokens",
    "beam_search",
    "mean_loglikelihood",
    "path_key",
    "path_tokens",
    "thought_key",
    "tree_of_thoughts",
]
