"""Searches by name: the one table that commands, tasks and benchmarks take them from."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jax import Array

from dendrite_jax.engine import GREEDY, Model, State
from dendrite_jax.search import backtracking
from dendrite_jax.search.backtracking import DepthFirstConfig
from dendrite_jax.search.beam import BeamPieces, BeamSearchConfig, token_beams
from dendrite_jax.search.levels import (
    BestOfNConfig,
    DVTSConfig,
    LevelsConfig,
    RebaseConfig,
    SampleConfig,
    StepBeamConfig,
    TreeOfThoughtsConfig,
)
from dendrite_jax.search.levels import loop as levels_loop
from dendrite_jax.search.monte_carlo import MctsConfig, MctsPieces
from dendrite_jax.search.monte_carlo import loop as mcts_loop
from dendrite_jax.search.protocol import Functions, Pieces, run_search
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score import RandomValues, SumLoglikelihood
from dendrite_jax.search.session import AnyScorer, StatefulScorer
from dendrite_jax.search.thoughts import SampleThoughts


class Task(NamedTuple):
    """What a task gives to any search."""

    expand: SampleThoughts
    score: AnyScorer
    depth: int
    """Thoughts on a path, at most."""
    commit: Array | None = None
    """i32[n], tokens appended to a kept thought before it is expanded."""
    hopeless: float = -math.inf
    """A thought of a lower value is a dead end to a search that backtracks."""
    stop_tokens: Array | None = None
    """i32[n], that end a whole text, for a search over tokens."""

    @property
    def path_tokens(self) -> int:
        """Tokens of the longest path of thoughts, those committed between them included."""
        between = 0 if self.commit is None else self.commit.shape[0]
        return self.depth * (self.expand.max_tokens + between) - between


class Search(NamedTuple):
    """A search with its sizes and pieces bound."""

    name: str
    functions: Functions
    config: Any
    """Static; `num_slots` and `num_nodes` say how many branches and nodes a problem needs."""
    pieces: Any
    paths: int
    """Branches of a problem that may each hold a whole path alone."""
    thoughts: int
    """Branches of a problem that may each hold a thought of their own on a path held elsewhere."""
    path_tokens: int
    """Tokens after the prompt on a path, at most."""

    def run(
        self, model: Model, state: State, roots: Array, key: Array
    ) -> tuple[State, SearchResult]:
        """The whole search in one call, pure; see `protocol`."""
        return run_search(self.functions, model, self.pieces, state, roots, key, self.config)


def _greedy(task: Task) -> Search:
    """The likeliest token always."""
    likeliest = task._replace(expand=task.expand.replace(sampling=GREEDY))
    return _by_levels("greedy", likeliest, SampleConfig(n=1, depth=task.depth))


def _sample(task: Task, *, proposals: int = 1) -> Search:
    """Sampled paths, each on its own, the best value first."""
    return _by_levels("sample", task, SampleConfig(n=proposals, depth=task.depth))


def _best_of_n(task: Task, *, proposals: int = 40) -> Search:
    """So many sampled paths, and a vote among their answers, each weighted by its value."""
    return _by_levels("best_of_n", task, BestOfNConfig(n=proposals, depth=task.depth))


def _beam_search(task: Task, *, width: int = 5, tokens: int = 64) -> Search:
    """The likeliest texts of up to so many tokens; no thoughts, and no scorer."""
    config = BeamSearchConfig(width=width, max_new_tokens=tokens)
    return Search(
        name="beam_search",
        functions=token_beams,
        config=config,
        pieces=BeamPieces(task.stop_tokens),
        paths=2 * width,
        thoughts=0,
        path_tokens=tokens,
    )


def _step_beam(task: Task, *, breadth: int = 5, proposals: int = 40) -> Search:
    """Sampled thoughts, of which the best by the scorer's values are kept."""
    config = StepBeamConfig(
        n=proposals, beam_width=_each(proposals, breadth), iterations=task.depth
    )
    return _by_levels("step_beam", task, config)


def _dvts(task: Task, *, breadth: int = 5, proposals: int = 40) -> Search:
    """As many subtrees as the breadth, each of which goes on with its own best thought."""
    config = DVTSConfig(n=proposals, beam_width=_each(proposals, breadth), iterations=task.depth)
    return _by_levels("dvts", task, config)


def _rebase(task: Task, *, proposals: int = 40) -> Search:
    """All thoughts go on, each with a share of the proposals by its probability."""
    config = RebaseConfig(width=proposals, depth=task.depth, temperature=1.0)
    return _by_levels("rebase", task, config)


def _tree_of_thoughts(task: Task, *, breadth: int = 5, proposals: int = 40) -> Search:
    """Tree of thoughts, breadth first: the best of each level are kept."""
    return _by_levels(
        "tree_of_thoughts", task, TreeOfThoughtsConfig(breadth, proposals, task.depth)
    )


def _depth_first(task: Task, *, proposals: int = 8, expansions: int = 15) -> Search:
    """Tree of thoughts, depth first: goes back from what is hopeless, ends on the first answer."""
    config = DepthFirstConfig(
        proposals=proposals, depth=task.depth, expansions=expansions, threshold=task.hopeless
    )
    return Search(
        name="depth_first",
        functions=backtracking,
        config=config,
        pieces=Pieces(task.expand, task.score, commit=task.commit),
        paths=config.stack,
        thoughts=proposals,
        path_tokens=task.path_tokens,
    )


def _mcts(
    task: Task, *, proposals: int = 8, expansions: int = 15, simulations: int = 200
) -> Search:
    """Monte Carlo tree search; a thought's children are sampled when it is expanded."""
    config = MctsConfig(
        num_simulations=simulations,
        num_children=proposals,
        num_expansions=expansions,
        max_depth=task.depth,
    )
    return Search(
        name="mcts",
        functions=mcts_loop,
        config=config,
        pieces=MctsPieces(task.expand, task.score, commit=task.commit),
        paths=1 + expansions,
        thoughts=config.num_nodes,
        path_tokens=task.path_tokens,
    )


def _likelihood_beam(task: Task, *, breadth: int = 5, proposals: int = 40) -> Search:
    """A step beam that keeps the thoughts on the likeliest paths, equal ones merged.

    The scorer's merge keys, answers and rejections hold; its values do not count, unless they are
    `RandomValues`: the control of a search by likelihood goes by them instead.
    """
    config = StepBeamConfig(
        n=proposals,
        beam_width=_each(proposals, breadth),
        iterations=task.depth,
        aggregate="sum",
        merge=True,
    )
    if isinstance(task.score, StatefulScorer):
        raise ValueError(
            f"score is a {type(task.score).__name__}; method 'beam' goes by the likelihood of the "
            f"path, and takes a scorer without a model of its own"
        )
    if not isinstance(task.score, RandomValues):
        task = task._replace(score=SumLoglikelihood(task.score))
    return _by_levels("beam", task, config)


SEARCHES: dict[str, Callable[..., Search]] = {
    "greedy": _greedy,
    "sample": _sample,
    "best_of_n": _best_of_n,
    "beam_search": _beam_search,
    "step_beam": _step_beam,
    "dvts": _dvts,
    "rebase": _rebase,
    "tree_of_thoughts": _tree_of_thoughts,
    "depth_first": _depth_first,
    "mcts": _mcts,
}
"""Builders by the name of the search's function; their keyword arguments are the sizes that a user
may choose."""
ALIASES: dict[str, Callable[..., Search]] = {
    "best-of-n": _best_of_n,
    "beam": _likelihood_beam,
    "tot-bfs": _tree_of_thoughts,
    "tot-dfs": _depth_first,
}
"""Further names: short ones, and `beam`, a step beam by the likelihood of the path."""


def sizes_of(name: str) -> dict[str, int]:
    """The sizes of a search that can be chosen, with their defaults."""
    parameters = inspect.signature(_builder(name)).parameters.values()
    return {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}


def build(name: str, task: Task, sizes: Mapping[str, int]) -> Search:
    """Binds a search of the table.

    Raises:
      ValueError: no such search, a size that it does not have, or a size out of its range.
    """
    known = sizes_of(name)
    for size, value in sizes.items():
        if size not in known:
            takes = ", ".join(known) or "none"
            raise ValueError(f"{size} is no size of method {name!r}, which takes {takes}")
        if value < 1:
            raise ValueError(f"{size} is {value}; it must be at least 1")
    return _builder(name)(task, **sizes)


def _builder(name: str) -> Callable[..., Search]:
    known = {**SEARCHES, **ALIASES}
    if name not in known:
        raise ValueError(f"method is {name!r}; it must be one of {', '.join(known)}")
    return known[name]


def _each(proposals: int, breadth: int) -> int:
    """How many proposals each of the kept thoughts gets."""
    if proposals % breadth:
        raise ValueError(f"proposals is {proposals}; it must be a multiple of breadth, {breadth}")
    return proposals // breadth


def _by_levels(name: str, task: Task, config: LevelsConfig) -> Search:
    return Search(
        name=name,
        functions=levels_loop,
        config=config,
        pieces=Pieces(task.expand, task.score, commit=task.commit),
        paths=config.kept,
        thoughts=config.proposals,
        path_tokens=task.path_tokens,
    )
