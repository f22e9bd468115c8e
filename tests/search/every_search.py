"""Every search in a small shape, called alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from dendrite_jax import search
from dendrite_jax.engine import Model, State, StopRules
from dendrite_jax.search import (
    BeamSearchConfig,
    BestOfNConfig,
    DepthFirstConfig,
    DVTSConfig,
    MctsConfig,
    Puct,
    RebaseConfig,
    SampleConfig,
    SampleThoughts,
    SearchResult,
    StepBeamConfig,
    TreeOfThoughtsConfig,
)
from engine.programs import VOCAB, bigram
from search.positional import PositionalModel, random_table


class ThoughtSearch(NamedTuple):
    """A search and its config."""

    search: Callable[..., Any]
    config: Any

    def bound(self) -> Callable[..., Any]:
        """f(model, state, roots, key, *, expand, score, commit)"""
        return partial(self.search, config=self.config)


THOUGHT_SEARCHES = {
    "sample": ThoughtSearch(search.sample, SampleConfig(n=3, depth=2)),
    "best_of_n": ThoughtSearch(search.best_of_n, BestOfNConfig(n=4, depth=2)),
    "tree_of_thoughts": ThoughtSearch(
        search.tree_of_thoughts, TreeOfThoughtsConfig(breadth=2, proposals=5, depth=3)
    ),
    "depth_first": ThoughtSearch(
        search.depth_first, DepthFirstConfig(proposals=3, depth=3, expansions=5, num_answers=4)
    ),
    "step_beam": ThoughtSearch(
        search.step_beam, StepBeamConfig(n=4, beam_width=2, iterations=3, aggregate="min")
    ),
    "dvts": ThoughtSearch(
        search.dvts, DVTSConfig(n=4, beam_width=2, iterations=3, aggregate="prod", lookahead=1)
    ),
    "rebase": ThoughtSearch(search.rebase, RebaseConfig(width=5, depth=3, temperature=0.5)),
    "mcts": ThoughtSearch(
        search.mcts,
        MctsConfig(
            num_simulations=12,
            num_children=4,
            inner_children=3,
            num_expansions=6,
            batch=2,
            max_depth=3,
            rule=Puct(dirichlet_fraction=0.3),
        ),
    ),
}
EVERY_SEARCH = ["beam_search", *THOUGHT_SEARCHES]
DISTINCT_SEARCHES = [name for name in EVERY_SEARCH if name != "sample"]
"""Without the one that `best_of_n` runs, to vote on what it finds."""
A_KIND_OF_LOOP = ["beam_search", "tree_of_thoughts", "depth_first", "mcts"]
"""One search of each loop; those by levels share theirs, and differ in plain functions."""
BEAMS = BeamSearchConfig(width=4, max_new_tokens=5, groups=2, diversity_penalty=0.5)
STOPS = jnp.array([0, 8])
EXPAND = SampleThoughts(4, StopRules(STOPS))
POSITIONAL = PositionalModel(jnp.asarray(random_table(3, VOCAB)))


def model_of(name: str) -> Model:
    """A bigram model; for beams one where no two sequences tie."""
    return POSITIONAL if name == "beam_search" else bigram()


@cache
def program(
    name: str,
) -> Callable[[State, jax.Array, jax.Array], tuple[State, SearchResult]]:
    """The search of `model_of(name)` with thoughts of up to 4 tokens, as f(state, roots, keys)."""
    if name == "beam_search":
        return lambda state, roots, keys: search.beam_search(
            POSITIONAL, state, roots, keys, BEAMS, stop_tokens=STOPS
        )
    bound = THOUGHT_SEARCHES[name].bound()
    return lambda state, roots, keys: bound(bigram(), state, roots, keys, expand=EXPAND)
