"""Monte Carlo tree search over an abstract expansion, batched over problems.

A simulation selects: it walks from the root to a node that is visited for the first time. A node is
expanded when it is visited for the second time; its children are evaluated together, and the worth
of the walk is backed up. So only expansions cost anything. mctx evaluates a node at its first
visit; with the same priors and worths the visits and means of both are the same.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Protocol, TypeVar

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine.loops import while_any
from dendrite_jax.search.monte_carlo.children import Children, back_up_leaves, enter, evaluate
from dendrite_jax.search.monte_carlo.config import SimulationConfig
from dendrite_jax.search.monte_carlo.selection import RootContext
from dendrite_jax.search.monte_carlo.tree import Family, MctsTree, back_up
from dendrite_jax.search.tree import NO_NODE, ROOT

Carry = TypeVar("Carry")


class MakeChildren(Protocol[Carry]):
    """Makes the children of nodes i32[problems, batch] of a tree, NO_NODE for none.

    They become the nodes first_child, first_child + 1, … of i32[problems, batch].
    """

    def __call__(
        self, carry: Carry, tree: MctsTree, nodes: Array, first_child: Array, /
    ) -> tuple[Carry, Children]: ...


class Progress(NamedTuple):
    """How far a search has come."""

    simulations: Array  # i32[problems]
    expansions: Array  # i32[problems]
    at_capacity: Array  # bool[problems], nodes or the expansion's own room ran out
    searching: Array  # bool[problems]


class Simulations(NamedTuple):
    """A search between two batches of expansions."""

    tree: MctsTree
    progress: Progress
    noise: Array  # f32[problems, num_children], of the root
    visits_before: Array  # i32[problems, num_children], of the root's children


def begin(tree: MctsTree, keys: Array, config: SimulationConfig) -> Simulations:
    """A search that goes on from a tree, which may be one of roots alone.

    Args:
      tree: as it is so far.
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
        progress=Progress(none, none, none.astype(bool), ~tree.closed[:, ROOT]),
        noise=jax.vmap(lambda key: config.rule.draw_noise(key, config.num_children))(keys),
        visits_before=visits,
    )


def run(
    make_children: MakeChildren[Carry],
    carry: Carry,
    search: Simulations,
    config: SimulationConfig,
) -> tuple[Carry, Simulations]:
    """Simulates until every problem has spent its simulations or expansions, or has no room.

    Args:
      make_children: of an expansion; traced once.
      carry: what `make_children` takes and gives, of fixed shape.
      search: from `begin`.
      config: static shape of the search.
    """

    def unfinished(loop: tuple[Carry, Simulations]) -> Array:
        return jnp.any(loop[1].progress.searching)

    def body(loop: tuple[Carry, Simulations]) -> tuple[Carry, Simulations]:
        return simulate(make_children, *loop, config)

    return while_any(unfinished, body, (carry, search))


def simulate(
    make_children: MakeChildren[Carry],
    carry: Carry,
    search: Simulations,
    config: SimulationConfig,
) -> tuple[Carry, Simulations]:
    """Simulates up to the next batch of expansions of every problem, and makes them."""
    tree, progress, leaves = _select(search, config)
    wanted = leaves != NO_NODE
    rank = jnp.cumsum(wanted, axis=1) - 1
    first_child = tree.num_nodes[:, None] + rank * config.num_children
    first_child = jnp.where(wanted, first_child, NO_NODE)
    carry, children = make_children(carry, tree, leaves, first_child)
    tree = enter(tree, leaves, first_child, children)
    tree, ends, worth = evaluate(tree, leaves, children, config)
    tree = back_up_leaves(tree, leaves, ends, worth, children, config)

    out_of_room = jnp.any(wanted & children.out_of_room, axis=1)
    progress = progress._replace(
        at_capacity=progress.at_capacity | out_of_room,
        searching=progress.searching & ~out_of_room & ~tree.closed[:, ROOT],
    )
    return carry, search._replace(tree=tree, progress=progress)


class _Selecting(NamedTuple):
    tree: MctsTree
    progress: Progress
    leaves: Array  # i32[problems, batch]
    taken: Array  # i32[problems], how many of them there are
    selecting: Array  # bool[problems]


def _select(search: Simulations, config: SimulationConfig) -> tuple[MctsTree, Progress, Array]:
    """Walks up to the nodes i32[problems, batch] to expand; NO_NODE where there are fewer."""
    problems = search.noise.shape[0]
    start = _Selecting(
        tree=search.tree,
        progress=search.progress,
        leaves=jnp.full((problems, config.batch), NO_NODE, jnp.int32),
        taken=jnp.zeros(problems, jnp.int32),
        selecting=search.progress.searching,
    )

    walk = partial(_walk, search=search, config=config)
    end = while_any(lambda loop: jnp.any(loop.selecting), walk, start)
    return end.tree, end.progress, end.leaves


def _walk(loop: _Selecting, search: Simulations, config: SimulationConfig) -> _Selecting:
    """One simulation of every problem that still selects."""
    tree, progress = loop.tree, loop.progress
    leaf = _descend(loop, search, config)
    opens = leaf == ROOT  # not a simulation, the root is expanded before the first
    is_done = ~opens & ((tree.at(tree.visits, leaf) == 0) | tree.at(tree.closed, leaf))
    counted = loop.selecting & is_done
    grows = loop.selecting & ~is_done
    # Walks are deterministic: one that meets a leaf of its own batch would meet it again.
    collides = grows & jnp.any(loop.leaves == leaf[:, None], axis=1)
    used = tree.num_nodes + loop.taken * config.num_children
    full = used + config.num_children > tree.parent.shape[1]
    spent = progress.expansions >= config.max_expansions
    stops = grows & ~collides & (full | spent)
    takes = grows & ~collides & ~stops
    counted |= takes & ~opens

    loss = config.virtual_loss if config.batch > 1 else 0.0
    worth = jnp.where(is_done, tree.at(tree.worth, leaf), -loss)
    visited = jnp.where(counted, leaf, NO_NODE)[:, None]
    tree = back_up(tree, visited, jnp.ones_like(visited), worth[:, None])

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
    selecting = loop.selecting & ~(collides | stops | opens) & unspent & (taken < config.batch)
    return _Selecting(tree, progress, leaves, taken, selecting)


def _descend(loop: _Selecting, search: Simulations, config: SimulationConfig) -> Array:
    """The nodes i32[problems] without children that the rule leads to."""
    tree, rule = loop.tree, config.rule
    root = jnp.full(loop.taken.shape, ROOT)
    context = RootContext(search.noise, search.visits_before, config.num_simulations)

    def child(node: Array, scores: Array, family: Family) -> Array:
        scores = jnp.where(jnp.isneginf(family.prior_logits), -jnp.inf, scores)
        first = tree.at(tree.first_child, node)
        chosen = first + jnp.argmax(scores, axis=1).astype(jnp.int32)
        return jnp.where(loop.selecting & (first != NO_NODE), chosen, node)

    def below(node: Array) -> Array:
        family = tree.family(node)
        return child(node, rule.scores(family), family)

    def descending(node: Array) -> Array:
        return jnp.any((tree.at(tree.first_child, node) != NO_NODE) & (node != ROOT))

    family = tree.family(root)
    first = child(root, rule.root_scores(family, context), family)
    return while_any(descending, below, first)
