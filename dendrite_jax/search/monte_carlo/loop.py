"""Monte Carlo tree search on the engine, batched over problems."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache import NO_BRANCH, Ledger
from dendrite_jax.engine import Model, State
from dendrite_jax.engine.loops import while_any
from dendrite_jax.search.checks import problem_keys
from dendrite_jax.search.monte_carlo.config import MctsConfig
from dendrite_jax.search.monte_carlo.expansion import (
    MctsPieces,
    Prior,
    Worth,
    even_prior,
    make_children,
)
from dendrite_jax.search.monte_carlo.rerooting import keep_below
from dendrite_jax.search.monte_carlo.simulation import Simulations, begin, simulate
from dendrite_jax.search.monte_carlo.tokens import TopTokens
from dendrite_jax.search.monte_carlo.tree import MctsTree
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score.scored import mean_loglikelihood
from dendrite_jax.search.select import best
from dendrite_jax.search.session import AnyScorer, Session, open_session
from dendrite_jax.search.thoughts import Expand
from dendrite_jax.search.tree import NO_NODE, ROOT


class MctsLoop(struct.PyTreeNode):
    """The search between two batches of expansions; `reroot` keeps a part of it."""

    session: Session
    simulations: Simulations
    bare_root: Array  # bool[problems], the root is a prompt, to which nothing is committed
    before: Ledger  # of the session, before the search
    config: MctsConfig = struct.field(pytree_node=False)

    @property
    def state(self) -> State:
        return self.session.state

    @property
    def tree(self) -> MctsTree:
        return self.simulations.tree

    @property
    def searching(self) -> Array:
        """bool[problems]"""
        return self.simulations.progress.searching


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
    pieces = MctsPieces(expand, score, prior, worth, commit)
    loop = start(pieces, state, roots, key, config)
    loop = while_any(unfinished, partial(advance, model, pieces), loop)
    return finish(pieces, loop)


def start(
    pieces: MctsPieces, state: State, roots: Array, key: Array, config: MctsConfig
) -> MctsLoop:
    """The search before its first simulation; see `protocol`.

    Raises:
      ValueError: `expand` is a `TopTokens` for another number of children.
    """
    _check_count(pieces, config)
    opened = open_session(pieces.score, state, roots, key)
    problems = roots.shape[0]
    tree = MctsTree.of_roots(
        problems, config.num_nodes, config.num_children, pieces.expand.max_tokens
    )
    tree = tree.replace(
        branch=tree.branch.at[:, ROOT].set(opened.roots),
        outcome=tree.outcome.at[:, ROOT].set(opened.outcome),
    )
    return MctsLoop(
        session=opened.session,
        simulations=begin(tree, opened.keys, config),
        bare_root=jnp.ones(problems, bool),
        before=opened.before,
        config=config,
    )


def unfinished(loop: MctsLoop) -> Array:
    """bool[], some problem has simulations, expansions and room left."""
    return jnp.any(loop.searching)


def advance(model: Model, pieces: MctsPieces, loop: MctsLoop) -> MctsLoop:
    """Simulates up to the next batch of expansions of every problem, and makes them."""
    expand = partial(make_children, model, pieces, loop.config, loop.bare_root)
    session, simulations = simulate(expand, loop.session, loop.simulations, loop.config)
    return loop.replace(session=session, simulations=simulations)


def read(pieces: MctsPieces, loop: MctsLoop) -> SearchResult:
    """What has been found so far."""
    config, tree = loop.config, loop.tree
    ends = tree.terminal & ~jnp.isneginf(tree.prior_logits)
    rank = tree.visits.astype(jnp.float32) if config.rank_by_visits else tree.value
    nodes = jnp.broadcast_to(jnp.arange(rank.shape[1]), rank.shape)
    values, answers = best(config.num_answers, jnp.where(ends, rank, -jnp.inf), nodes)
    return SearchResult.of(
        tree.as_search_tree(),
        answers,
        values,
        frontier=jnp.full((rank.shape[0], 1), NO_NODE),  # it goes on from everywhere
        cut=loop.searching,
        at_capacity=loop.simulations.progress.at_capacity,
        max_depth=config.max_depth,
        state=loop.state,
        ledger=loop.session.ledger(pieces.score).since(loop.before),
    )


def finish(pieces: MctsPieces, loop: MctsLoop) -> tuple[State, SearchResult]:
    """Ends a search: frees what it still holds but the roots."""
    held = loop.tree.branch.at[:, ROOT].set(NO_BRANCH).reshape(-1)
    session = loop.session.free(pieces.score, held)
    return session.state, read(pieces, loop.replace(session=session))


def most_visited(loop: MctsLoop) -> Array:
    """Which child of each root was visited most, i32[problems] from 0; −1 where there is none.

    The children of a root are the nodes from 1 on.
    """
    tree = loop.tree
    visits = tree.visits[:, 1 : 1 + tree.num_children]
    none = jnp.max(visits, axis=1) == 0
    return jnp.where(none, -1, jnp.argmax(visits, axis=1)).astype(jnp.int32)


def reroot(pieces: MctsPieces, loop: MctsLoop, action: Array, key: Array) -> MctsLoop:
    """A new search of the same size from a child of the root, with what is known below it.

    The branches of all other nodes are freed, except the old root's, which is the caller's. The
    child's own branch becomes the caller's root: `loop.tree.branch[:, ROOT]`, NO_BRANCH for an
    answer.

    Args:
      pieces: of the search.
      loop: a search.
      action: i32[problems], which child of the root, from 0, as `most_visited` gives; one that does
        not exist ends the problem's search.
      key: a random key, or one a problem, of the noise at the new root.

    Raises:
      ValueError: not such keys.
    """
    keys = problem_keys(key, action.shape[0])
    old = loop.tree
    tree, origin = keep_below(old, action)
    kept = jnp.zeros(origin.shape, bool)
    kept = kept.at[old.problems, old.or_unused(origin)].set(True, mode="drop")
    dropped = jnp.where(kept, NO_BRANCH, old.branch).at[:, ROOT].set(NO_BRANCH)
    session = loop.session.free(pieces.score, dropped.reshape(-1))
    return loop.replace(
        session=session,
        simulations=begin(tree, keys, loop.config),
        bare_root=jnp.zeros_like(loop.bare_root),
        before=session.ledger(pieces.score),
    )


def _check_count(pieces: MctsPieces, config: MctsConfig) -> None:
    expand = pieces.expand
    inner = config.inner_children or config.num_children
    if isinstance(expand, TopTokens) and {expand.count} != {config.num_children, inner}:
        raise ValueError(
            f"count is {expand.count}; it must be num_children, {config.num_children}, and "
            f"inner_children, {inner}"
        )
