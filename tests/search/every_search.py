"""Every search that grows thoughts, in a small shape and called alike."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from dendrite_jax import search
from dendrite_jax.search import (
    BestOfNConfig,
    DepthFirstConfig,
    DVTSConfig,
    RebaseConfig,
    SampleConfig,
    StepBeamConfig,
    TreeOfThoughtsConfig,
)


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
        search.depth_first, DepthFirstConfig(proposals=3, depth=3, steps=5, num_answers=4)
    ),
    "step_beam": ThoughtSearch(
        search.step_beam, StepBeamConfig(n=4, beam_width=2, iterations=3, aggregate="min")
    ),
    "dvts": ThoughtSearch(
        search.dvts, DVTSConfig(n=4, beam_width=2, iterations=3, aggregate="prod", lookahead=1)
    ),
    "rebase": ThoughtSearch(search.rebase, RebaseConfig(width=5, depth=3, temperature=0.5)),
}
