"""Monte Carlo tree search over an abstract expansion, batched over problems.

A simulation walks from the root to a node that is visited for the first time and backs its value
up. Children get their values when their parent is expanded, and a node is expanded when it is
visited for the second time, so that only those simulations cost anything. mctx evaluates a node
at its first visit; with the same priors and values the visits and values of both are the same.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.mcts.config import SimulationConfig
from dendrite_jax.search.mcts.growth import Expansion, attach
from dendrite_jax.search.mcts.rules import RootContext
from dendrite_jax.search.mcts.statistics import Family, Statistics, back_up
from dendrite_jax.search.tree import NO_NODE, ROOT

Carry = TypeVar("Carry")


class Expand(Protocol[Carry]):
    """Makes the children of nodes i32[problems, batch], NO_NODE for none.

    They become the nodes first_child, first_child + 1, … of i32[problems, batch].
    """

    def __call__(
        self, carry: Carry, nodes: Array, first_child: Array, /
    ) -> tuple[Carry, Expansion]: ...


class Progress(NamedTuple):
    """How far a search has come."""

    simulations: Array  # i32[problems]
    expansions: Array  # i32[problems]
    at_capacity: Array  # bool[problems], nodes or the expansion's own room ran out
    searching: Array  # bool[problems]


class Simulations(NamedTuple):
    """A search between two batches of expansions."""

    tree: Statistics
    progress: Progress
    noise: Array  # f32[problems, num_children], of the root
    visits_before: Array  # i32[problems, num_children], of the root's children


def begin(tree: Statistics, keys: Array, config: SimulationConfig) -> Simulations:
    """A search that goes on from a tree, which may be one of roots alone.

    Args:
      tree: the statistics so far.
      keys: a random key a problem, of the noise at the root.
      config: static shape of the search.

    Raises:
      ValueError: the tree was made for another number of children.
    """
    if tree.num_children != config.num_children:
        raise ValueError(
            f"num_children is {config.num_children}; the tree was made for {tree.num_children}"
        )
    problems = tree.parent.shape[0]
    none = jnp.zeros(problems, jnp.int32)
    root = jnp.full(problems, ROOT)
    expanded = tree.first_child[:, ROOT] != NO_NODE
    visits = jnp.where(expanded[:, None], tree.family(root).child_visits, 0)
    return Simulations(
        tree=tree,
        progress=Progress(none, none, none.astype(bool), ~tree.terminal[:, ROOT]),
        noise=jax.vmap(lambda key: config.rule.draw_noise(key, config.num_children))(keys),
        visits_before=visits,
    )


def run(
    expand: Expand[Carry], carry: Carry, search: Simulations, config: SimulationConfig
) -> tuple[Carry, Simulations]:
    """Simulates until every problem has spent its simulations or expansions, or has no room.

    Args:
      expand: makes children; traced once.
      carry: what `expand` takes and gives, of fixed shape.
      search: from `begin`.
      config: static shape of the search.
    """

    def unfinished(loop: tuple[Carry, Simulations]) -> Array:
        return jnp.any(loop[1].progress.searching)

    def body(loop: tuple[Carry, Simulations]) -> tuple[Carry, Simulations]:
        return simulate(expand, *loop, config)

    return jax.lax.while_loop(unfinished, body, (carry, search))


def simulate(
    expand: Expand[Carry], carry: Carry, search: Simulations, config: SimulationConfig
) -> tuple[Carry, Simulations]:
    """Simulates up to the next batch of expansions of every problem, and makes them."""
    search, leaves = _collect(search, config)
    tree = search.tree
    wanted = leaves != NO_NODE
    rank = jnp.cumsum(wanted, axis=1) - 1
    first_child = tree.num_nodes[:, None] + rank * config.num_children
    carry, expansion = expand(carry, leaves, jnp.where(wanted, first_child, NO_NODE))
    tree = attach(tree, leaves, first_child, expansion, config)
    out_of_room = jnp.any(wanted & expansion.out_of_room, axis=1)
    progress = search.progress
    progress = progress._replace(
        at_capacity=progress.at_capacity | out_of_room,
        searching=progress.searching & ~out_of_room & ~tree.terminal[:, ROOT],
    )
    return carry, search._replace(tree=tree, progress=progress)


class _Collected(NamedTuple):
    tree: Statistics
    progress: Progress
    leaves: Array  # i32[problems, batch]
    taken: Array  # i32[problems], how many of them there are
    collecting: Array  # bool[problems]


def _collect(search: Simulations, config: SimulationConfig) -> tuple[Simulations, Array]:
    """Simulations up to the nodes i32[problems, batch] to expand; NO_NODE where there are fewer."""
    problems = search.noise.shape[0]
    start = _Collected(
        tree=search.tree,
        progress=search.progress,
        leaves=jnp.full((problems, config.batch), NO_NODE, jnp.int32),
        taken=jnp.zeros(problems, jnp.int32),
        collecting=search.progress.searching,
    )

    def body(loop: _Collected) -> _Collected:
        return _walk(loop, search, config)

    end = jax.lax.while_loop(lambda loop: jnp.any(loop.collecting), body, start)
    return search._replace(tree=end.tree, progress=end.progress), end.leaves


def _walk(loop: _Collected, search: Simulations, config: SimulationConfig) -> _Collected:
    """One simulation of every problem that still collects."""
    tree, progress = loop.tree, loop.progress
    leaf = _descend(loop, search, config)
    opens = leaf == ROOT  # not a simulation, the root is expanded before the first
    is_done = ~opens & ((tree.at(tree.visits, leaf) == 0) | tree.at(tree.terminal, leaf))
    counted = loop.collecting & is_done
    grows = loop.collecting & ~is_done
    # Walks are deterministic: one that meets a leaf of its own batch would meet it again.
    collides = grows & jnp.any(loop.leaves == leaf[:, None], axis=1)
    full = ~tree.replace(num_nodes=tree.num_nodes + loop.taken * config.num_children).has_room
    spent = progress.expansions >= config.max_expansions
    stops = grows & ~collides & (full | spent)
    takes = grows & ~collides & ~stops
    counted |= takes & ~opens

    loss = config.virtual_loss if config.batch > 1 else 0.0
    value = jnp.where(is_done, tree.at(tree.value, leaf), -loss)
    visited = jnp.where(counted, leaf, NO_NODE)[:, None]
    tree = back_up(tree, visited, jnp.ones_like(visited), value[:, None])

    place = jnp.where(takes, loop.taken, config.batch)
    leaves = loop.leaves.at[tree.problems[:, 0], place].set(leaf, mode="drop")
    taken = loop.taken + takes
    progress = Progress(
        simulations=progress.simulations + counted,
        expansions=progress.expansions + takes,
        at_capacity=progress.at_capacity | (stops & full & ~spent),
        searching=progress.searching & ~stops,
    )
    unspent = progress.simulations < config.num_simulations
    progress = progress._replace(searching=progress.searching & unspent)
    collecting = loop.collecting & ~(collides | stops | opens) & unspent & (taken < config.batch)
    return _Collected(tree, progress, leaves, taken, collecting)


def _descend(loop: _Collected, search: Simulations, config: SimulationConfig) -> Array:
    """The nodes i32[problems] without children that the rule leads to."""
    tree, rule = loop.tree, config.rule
    root = jnp.full(loop.taken.shape, ROOT)
    context = RootContext(search.noise, search.visits_before, config.num_simulations)

    def child(node: Array, scores: Array, family: Family) -> Array:
        scores = jnp.where(jnp.isneginf(family.prior_logits), -jnp.inf, scores)
        first = tree.at(tree.first_child, node)
        chosen = first + jnp.argmax(scores, axis=1).astype(jnp.int32)
        return jnp.where(loop.collecting & (first != NO_NODE), chosen, node)

    def below(node: Array) -> Array:
        family = tree.family(node)
        return child(node, rule.scores(family), family)

    def descending(node: Array) -> Array:
        return jnp.any((tree.at(tree.first_child, node) != NO_NODE) & (node != ROOT))

    family = tree.family(root)
    first = child(root, rule.root_scores(family, context), family)
    return jax.lax.while_loop(descending, below, first)
