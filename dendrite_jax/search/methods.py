"""Searches by name: the one table that commands, tasks and benchmarks take them from."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import GREEDY, Model, State
from dendrite_jax.search import levels
from dendrite_jax.search.best_of_n import BestOfNConfig, best_of_n
from dendrite_jax.search.depth_first import DepthFirstConfig, depth_first
from dendrite_jax.search.depth_first import finish as finish_depth_first
from dendrite_jax.search.depth_first import start as start_depth_first
from dendrite_jax.search.depth_first import step as step_depth_first
from dendrite_jax.search.depth_first import unfinished as unfinished_depth_first
from dendrite_jax.search.expand import SampleThoughts
from dendrite_jax.search.mcts import MctsConfig, MctsLoop, mcts, read, simulate
from dendrite_jax.search.mcts import start as start_mcts
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.sample import SampleConfig, sample
from dendrite_jax.search.sample import rules as sample_rules
from dendrite_jax.search.scoring import RandomValues, Scorer, SumLoglikelihood
from dendrite_jax.search.step_beam import StepBeamConfig, step_beam
from dendrite_jax.search.step_beam import rules as step_beam_rules
from dendrite_jax.search.tree import NO_NODE, ROOT
from dendrite_jax.search.tree_of_thoughts import TreeOfThoughtsConfig, tree_of_thoughts
from dendrite_jax.search.tree_of_thoughts import rules as tree_of_thoughts_rules
from dendrite_jax.search.vote import vote


class Pieces(NamedTuple):
    """What a task gives to any search."""

    expand: SampleThoughts
    score: Scorer
    depth: int
    """Thoughts on a path, at most."""
    commit: Array | None = None
    """i32[n], tokens appended to a kept thought before it is expanded."""
    hopeless: float = -math.inf
    """A thought of a lower value is a dead end to a search that backtracks."""


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
    """loop → bool[], whether to advance it again."""
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


def greedy(pieces: Pieces) -> Method:
    """The likeliest token always."""
    likeliest = pieces._replace(expand=pieces.expand.replace(sampling=GREEDY))
    return one_sample(likeliest)


def one_sample(pieces: Pieces) -> Method:
    """One sampled path."""
    config = SampleConfig(n=1, depth=pieces.depth)
    return _by_levels(pieces, config, sample_rules(config), sample)


def best_of(pieces: Pieces, *, proposals: int = 40) -> Method:
    """So many sampled paths, and a vote among their answers, each weighted by its value."""
    config = BestOfNConfig(n=proposals, depth=pieces.depth)
    method = _by_levels(pieces, config, sample_rules(config), best_of_n)

    def view(loop: levels.LevelsLoop) -> View:
        result, kept = method.steps.view(loop)
        return View(vote(result, config.vote), kept)

    return method._replace(steps=method.steps._replace(view=view))


def beam(pieces: Pieces, *, breadth: int = 5, proposals: int = 40) -> Method:
    """Sampled thoughts, of which those on the likeliest paths are kept.

    The scorer's rules hold; its values do not count, unless they are `RandomValues`: the control
    of a search by likelihood goes by them instead.
    """
    if proposals % breadth:
        raise ValueError(f"proposals is {proposals}; it must be a multiple of breadth, {breadth}")
    config = StepBeamConfig(
        n=proposals,
        beam_width=proposals // breadth,
        iterations=pieces.depth,
        aggregate="sum",
        merge=True,
    )
    if not isinstance(pieces.score, RandomValues):
        pieces = pieces._replace(score=SumLoglikelihood(pieces.score))
    return _by_levels(pieces, config, step_beam_rules(config), step_beam)


def tot_bfs(pieces: Pieces, *, breadth: int = 5, proposals: int = 40) -> Method:
    """Tree of thoughts, breadth first: the best of each level are kept."""
    config = TreeOfThoughtsConfig(breadth, proposals, pieces.depth)
    return _by_levels(pieces, config, tree_of_thoughts_rules(config), tree_of_thoughts)


def tot_dfs(pieces: Pieces, *, proposals: int = 8, expansions: int = 15) -> Method:
    """Tree of thoughts, depth first: goes back from what is hopeless, ends on the first answer."""
    config = DepthFirstConfig(
        proposals=proposals, depth=pieces.depth, steps=expansions, threshold=pieces.hopeless
    )
    bound: dict[str, Any] = {
        "config": config,
        "expand": pieces.expand,
        "score": pieces.score,
        "commit": pieces.commit,
    }
    return Method(
        config=config,
        paths=config.stack,
        thoughts=proposals,
        search=partial(depth_first, **bound),
        steps=Steps(
            start=lambda state, roots, key: start_depth_first(
                state, roots, key, config, pieces.expand.max_tokens, pieces.score
            ),
            advance=lambda model, loop: step_depth_first(model, loop, **bound),
            view=lambda loop: View(
                finish_depth_first(loop, config, pieces.score)[1],
                # Places of the stack above those that wait are left as they were.
                jnp.where(loop.branches >= 0, loop.nodes, NO_NODE),
            ),
            unfinished=lambda loop: unfinished_depth_first(loop, config),
            close=lambda loop: (loop.held.state, loop.branches.reshape(-1)),
        ),
    )


def monte_carlo(
    pieces: Pieces, *, proposals: int = 8, expansions: int = 15, simulations: int = 200
) -> Method:
    """Monte Carlo tree search; a thought's children are sampled when it is expanded."""
    config = MctsConfig(
        num_simulations=simulations,
        num_children=proposals,
        num_expansions=expansions,
        max_depth=pieces.depth,
    )
    bound: dict[str, Any] = {
        "config": config,
        "expand": pieces.expand,
        "score": pieces.score,
        "commit": pieces.commit,
    }

    def held(loop: MctsLoop) -> Array:
        return loop.held.branch.at[:, ROOT].set(-1).reshape(-1)

    return Method(
        config=config,
        paths=1 + expansions,
        thoughts=config.num_nodes,
        search=partial(mcts, **bound),
        steps=Steps(
            start=lambda state, roots, key: start_mcts(
                state, roots, key, config, pieces.expand.max_tokens, pieces.score
            ),
            advance=lambda model, loop: simulate(model, loop, **bound),
            view=lambda loop: View(
                read(loop, config, pieces.score), jnp.full((loop.held.branch.shape[0], 1), NO_NODE)
            ),
            unfinished=lambda loop: loop.unfinished,
            close=lambda loop: (loop.held.state, held(loop)),
        ),
    )


METHODS: dict[str, Callable[..., Method]] = {
    "greedy": greedy,
    "sample": one_sample,
    "best-of-n": best_of,
    "beam": beam,
    "tot-bfs": tot_bfs,
    "tot-dfs": tot_dfs,
    "mcts": monte_carlo,
}
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
    for size, value in sizes.items():
        if size not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"{size} is no size of method {name!r}, which takes {takes}")
        if value < 1:
            raise ValueError(f"{size} is {value}; it must be at least 1")
    return METHODS[name](pieces, **sizes)


def _by_levels(
    pieces: Pieces,
    config: levels.Levels,
    rules: levels.Rules,
    search: Callable[..., tuple[State, SearchResult]],
) -> Method:
    """A search that grows one level at each step."""
    bound: dict[str, Any] = {
        "config": config,
        "expand": pieces.expand,
        "score": pieces.score,
        "commit": pieces.commit,
    }
    return Method(
        config=config,
        paths=config.kept,
        thoughts=config.proposals,
        search=partial(search, **bound),
        steps=Steps(
            start=lambda state, roots, key: levels.start(
                state, roots, key, config, pieces.expand.max_tokens, pieces.score
            ),
            advance=lambda model, loop: levels.grow(model, loop, rules=rules, **bound),
            view=lambda loop: View(levels.finish(loop, config, pieces.score)[1], loop.nodes),
            unfinished=lambda loop: (loop.level < config.depth) & jnp.any(loop.frontier >= 0),
            close=lambda loop: (loop.state, loop.frontier.reshape(-1)),
        ),
    )
