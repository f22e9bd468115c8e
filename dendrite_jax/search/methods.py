"""Searches by name: the one table that commands, tasks and benchmarks take them from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search.expand import Expand
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.scoring import Scorer
from dendrite_jax.search.tree_of_thoughts import (
    TreeOfThoughtsConfig,
    TreeOfThoughtsLoop,
    grow,
    start,
    tree_of_thoughts,
)


class Pieces(NamedTuple):
    """What a task gives to any search."""

    expand: Expand
    score: Scorer
    depth: int
    """Thoughts on a path, at most."""
    commit: Array | None = None
    """i32[n], tokens appended to a kept thought before it is expanded."""


class View(NamedTuple):
    """A search as it stands."""

    result: SearchResult
    kept: Array  # i32[problems, n], nodes that it goes on from; NO_NODE where there are fewer


class Steps(NamedTuple):
    """A search in steps, for a host that looks at it while it runs; all are pure functions."""

    start: Callable[[State, Array, Array], Any]
    """(state, roots, key) → loop."""
    advance: Callable[[Model, Any], Any]
    """(model, loop) → loop."""
    view: Callable[[Any], View]
    unfinished: Callable[[Any], Array]
    """loop → bool[], whether to advance again."""
    close: Callable[[Any], tuple[State, Array]]
    """loop → the state, and i32[n]: the branches to free in it; negative for none."""


class Method(NamedTuple):
    """A search with its sizes and pieces bound."""

    config: Any
    paths: int
    """Branches of a problem that may each hold a whole path alone."""
    thoughts: int
    """Branches of a problem that may each hold a thought of their own on a path held elsewhere."""
    search: Callable[[Model, State, Array, Array], tuple[State, SearchResult]]
    """(model, state, roots, key) → state, result."""
    steps: Steps


def tot_bfs(pieces: Pieces, *, breadth: int = 5, proposals: int = 40) -> Method:
    """Tree of thoughts, breadth first."""
    config = TreeOfThoughtsConfig(breadth, proposals, pieces.depth)
    bound: dict[str, Any] = {
        "expand": pieces.expand,
        "score": pieces.score,
        "commit": pieces.commit,
    }

    def view(loop: TreeOfThoughtsLoop) -> View:
        found = SearchResult.of(
            loop.tree,
            loop.answers,
            loop.values,
            loop.at_capacity,
            max_depth=config.depth,
            state=loop.state,
            before=loop.before,
        )
        return View(found, loop.nodes)

    return Method(
        config=config,
        paths=breadth,
        thoughts=proposals,
        search=partial(tree_of_thoughts, config=config, **bound),
        steps=Steps(
            start=lambda state, roots, key: start(
                state, roots, key, config, pieces.expand.max_tokens
            ),
            advance=lambda model, loop: grow(model, loop, config, **bound),
            view=view,
            unfinished=lambda loop: (loop.level < config.depth) & jnp.any(loop.frontier >= 0),
            close=lambda loop: (loop.state, loop.frontier.reshape(-1)),
        ),
    )


METHODS: dict[str, Callable[..., Method]] = {"tot-bfs": tot_bfs}
"""Builders by name; their keyword arguments are the sizes that a user may choose."""


def sizes_of(name: str) -> dict[str, int]:
    """The sizes of a method that can be chosen, with their defaults."""
    parameters = inspect.signature(METHODS[name]).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def build(name: str, pieces: Pieces, sizes: Mapping[str, int]) -> Method:
    """Binds a search of the table.

    Raises:
      ValueError: no such method, a size that it does not have, or a size out of its range.
    """
    if name not in METHODS:
        raise ValueError(f"method is {name!r}; it must be one of {', '.join(METHODS)}")
    known = sizes_of(name)
    for size in sizes:
        if size not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"{size} is no size of method {name!r}, which takes {takes}")
    return METHODS[name](pieces, **sizes)
