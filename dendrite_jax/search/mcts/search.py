"""Monte Carlo tree search on the engine, batched over problems."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache import Ledger
from dendrite_jax.engine import Model, State
from dendrite_jax.search import branches as held_branches
from dendrite_jax.search.branches import AnyScorer
from dendrite_jax.search.expand import Expand
from dendrite_jax.search.mcts import core
from dendrite_jax.search.mcts.config import SimulationConfig
from dendrite_jax.search.mcts.core import Simulations
from dendrite_jax.search.mcts.expansion import (
    Held,
    Pieces,
    Prior,
    Shape,
    Worth,
    even_prior,
    make_children,
)
from dendrite_jax.search.mcts.growth import Expansion
from dendrite_jax.search.mcts.reroot import reroot as reroot_statistics
from dendrite_jax.search.mcts.statistics import Statistics
from dendrite_jax.search.mcts.tokens import TopTokens
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.scoring import mean_loglikelihood
from dendrite_jax.search.select import best
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


@dataclass(frozen=True)
class MctsConfig(SimulationConfig):
    """Static shape of the search; see `SimulationConfig` for the first fields.

    Attributes:
      inner_children: children that an expansion below the root makes; `num_children` when None.
        Both widths are compiled, and the larger one is run for roots alone.
      max_depth: thoughts on a path, at most; one that deep ends its path as an answer does.
      num_answers: answers that come out.
      rank_by_visits: whether the most visited answers come out rather than the best valued.
    """

    inner_children: int | None = None
    max_depth: int = 8
    num_answers: int = 5
    rank_by_visits: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("max_depth", "num_answers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.inner_children is not None and not 1 <= self.inner_children <= self.num_children:
            raise ValueError(
                f"inner_children is {self.inner_children}; it must be from 1 to num_children, "
                f"{self.num_children}"
            )

    @property
    def num_slots(self) -> int:
        """Branches that one problem holds at once, its root included."""
        expansions = (self.num_nodes - 1) // self.num_children
        inner = self.inner_children or self.num_children
        return 1 + self.num_children + (expansions - 1) * inner


class MctsLoop(NamedTuple):
    """The search between two batches of expansions.

    `start`, `simulate` and `result` make, advance and read it; `reroot` keeps a part of it.
    """

    held: Held
    search: Simulations
    before: Ledger

    @property
    def unfinished(self) -> Array:
        """bool[], some problem still searches."""
        return jnp.any(self.search.progress.searching)


def mcts(
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    config: MctsConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    prior: Prior = even_prior,
    worth: Worth = jnp.exp,
    commit: Array | None = None,
) -> tuple[State, SearchResult]:
    """Searches every problem at once.

    A node's children are sampled together when it is visited for the second time. A child that is
    rejected, or that repeats a better sibling, is never visited. An answer may be visited again,
    which spends a simulation but no tokens.

    Args:
      model: the model.
      state: the engine state; donate it under jit. Each problem uses up to `config.num_slots`.
      roots: i32[problems], a prefilled branch a problem; they stay held and get new random keys.
      key: a random key, or one a problem; a problem's search depends on its own key only.
      config: static shape of the search.
      expand: makes thoughts, such as `SampleThoughts`; one that is not complete is dropped.
      score: judges complete thoughts.
      prior: weighs siblings.
      worth: turns the scorer's values, which are log-probabilities by default, into what is
        averaged; `Uct` expects a result in [0, 1].
      commit: i32[n], tokens appended to a thought before it is expanded; none when None.

    Returns:
      The state, with every branch but the roots freed, and the result. A problem that runs out of
      slots, blocks or context stops with what it has found.
    """
    loop = start(state, roots, key, config, expand.max_tokens, score)

    def advance(loop: MctsLoop) -> MctsLoop:
        return simulate(
            model, loop, config, expand=expand, score=score, prior=prior, worth=worth, commit=commit
        )

    loop = jax.lax.while_loop(lambda loop: loop.unfinished, advance, loop)
    return result(loop, config, score)


def start(
    state: State,
    roots: Array,
    key: Array,
    config: MctsConfig,
    thought_tokens: int,
    score: AnyScorer = mean_loglikelihood,
) -> MctsLoop:
    """The search before its first simulation; arguments as in `mcts`."""
    problems = roots.shape[0]
    branches, roots, keys, before = held_branches.hold_roots(score, state, roots, key)
    branch = jnp.full((problems, config.num_nodes), -1, jnp.int32)
    held = Held(
        branches=branches,
        record=SearchTree.empty(problems, config.num_nodes, thought_tokens),
        branch=branch.at[:, ROOT].set(roots),
        bare_root=jnp.ones(problems, bool),
    )
    tree = Statistics.empty(problems, config.num_nodes, config.num_children)
    return MctsLoop(held, core.begin(tree, keys, config), before)


def simulate(
    model: Model,
    loop: MctsLoop,
    config: MctsConfig,
    *,
    expand: Expand,
    score: AnyScorer = mean_loglikelihood,
    prior: Prior = even_prior,
    worth: Worth = jnp.exp,
    commit: Array | None = None,
) -> MctsLoop:
    """Simulates up to the next batch of expansions of every problem, and makes them.

    Raises:
      ValueError: `expand` is a `TopTokens` for another number of children.
    """
    inner_children = config.inner_children or config.num_children
    if isinstance(expand, TopTokens) and {expand.count} != {config.num_children, inner_children}:
        raise ValueError(
            f"count is {expand.count}; it must be num_children, {config.num_children}, and "
            f"inner_children, {inner_children}"
        )
    pieces = Pieces(expand, score, prior, worth, commit)
    shape = Shape(config.num_children, inner_children, config.max_depth)

    def children(held: Held, nodes: Array, first_child: Array) -> tuple[Held, Expansion]:
        return make_children(model, held, nodes, first_child, pieces, shape)

    held, search = core.simulate(children, loop.held, loop.search, config)
    return loop._replace(held=held, search=search)


def result(
    loop: MctsLoop, config: MctsConfig, score: AnyScorer = mean_loglikelihood
) -> tuple[State, SearchResult]:
    """Ends a search: frees what it still holds but the roots."""
    held = loop.held
    dropped = held.branch.at[:, ROOT].set(-1).reshape(-1)
    held = held._replace(branches=held_branches.free(score, held.branches, dropped))
    return held.state, read(loop._replace(held=held), config, score)


def read(loop: MctsLoop, config: MctsConfig, score: AnyScorer = mean_loglikelihood) -> SearchResult:
    """What a search has found so far; it can go on."""
    statistics = loop.search.tree
    record = loop.held.record.replace(visits=statistics.visits)
    ends = record.terminal & ~jnp.isneginf(statistics.prior_logits)
    rank = statistics.visits.astype(jnp.float32) if config.rank_by_visits else record.value
    nodes = jnp.broadcast_to(jnp.arange(rank.shape[1]), rank.shape)
    values, answers = best(config.num_answers, jnp.where(ends, rank, -jnp.inf), nodes)
    return SearchResult.of(
        record,
        answers,
        values,
        loop.search.progress.at_capacity,
        max_depth=config.max_depth,
        state=loop.held.state,
        ledger=held_branches.ledger(score, loop.held.branches).since(loop.before),
    )


def most_visited(loop: MctsLoop) -> Array:
    """Which child of each root was visited most, i32[problems] from 0; −1 where there is none.

    The children of a root are the nodes from 1 on.
    """
    tree = loop.search.tree
    visits = tree.visits[:, 1 : 1 + tree.num_children]
    none = jnp.max(visits, axis=1) == 0
    return jnp.where(none, -1, jnp.argmax(visits, axis=1)).astype(jnp.int32)


def reroot(
    loop: MctsLoop,
    action: Array,
    key: Array,
    config: MctsConfig,
    score: AnyScorer = mean_loglikelihood,
) -> MctsLoop:
    """A new search of the same size from a child of the root, with what is known below it.

    The branches of all other nodes are freed, except the old root's, which is the caller's. The
    child's own branch becomes the caller's root: `loop.held.branch[:, ROOT]`, −1 for an answer.

    Args:
      loop: a search.
      action: i32[problems], which child of the root, from 0, as `most_visited` gives; one that does
        not exist ends the problem's search.
      key: a random key, or one a problem, of the noise at the new root.
      config: as before.
      score: as before.
    """
    keys = key if key.ndim else jax.random.split(key, action.shape[0])
    tree, origin = reroot_statistics(loop.search.tree, action)
    held = loop.held
    problem, source = tree.problems, jnp.maximum(origin, 0)
    used = origin != NO_NODE
    kept = jnp.zeros(used.shape, bool).at[problem, tree.or_unused(origin)].set(True, mode="drop")
    dropped = jnp.where(kept, -1, held.branch).at[:, ROOT].set(-1)
    record, fresh = held.record, SearchTree.empty(*held.record.tokens.shape)

    def move(field: Array, empty: Array) -> Array:
        at_row = used.reshape(*used.shape, *[1] * (field.ndim - 2))
        return jnp.where(at_row, field[problem, source], empty)

    record = jax.tree.map(move, record, fresh)
    # The new root is a prompt: its own tokens are before every path.
    own = ("tokens", "raw_logprob", "logprob")
    record = record.replace(
        parent=jnp.where(record.parent == NO_NODE, NO_NODE, tree.parent),
        depth=jnp.maximum(record.depth - 1, 0),
        **{
            name: getattr(record, name).at[:, ROOT].set(getattr(fresh, name)[:, ROOT])
            for name in own
        },
    )
    held = Held(
        branches=held_branches.free(score, held.branches, dropped.reshape(-1)),
        record=record,
        branch=jnp.where(used, held.branch[problem, source], -1),
        bare_root=jnp.zeros_like(held.bare_root),
    )
    before = held_branches.ledger(score, held.branches)
    return MctsLoop(held, core.begin(tree, keys, config), before)
