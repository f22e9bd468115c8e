"""The full state graph, built once for all tests of the game."""

from __future__ import annotations

import pytest

from dendrite_jax.tasks.game24.game.graph import (
    Split,
    StateGraph,
    add_wide_states,
    build_graph,
    split_states,
)


@pytest.fixture(scope="session")
def graph() -> StateGraph:
    return build_graph()


@pytest.fixture(scope="session")
def split(graph: StateGraph) -> Split:
    return split_states(graph)


@pytest.fixture(scope="session")
def wide(graph: StateGraph, split: Split) -> tuple[StateGraph, Split]:
    return add_wide_states(graph, split, 30_000)
