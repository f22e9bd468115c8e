"""The children that an expansion made: entering them, and what the walk to them is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.monte_carlo.config import SimulationConfig
from dendrite_jax.search.monte_carlo.tree import MctsTree, back_up
from dendrite_jax.search.tree import NO_NODE, ROOT


class Children(NamedTuple):
    """The children of the nodes of a batch."""

    made: Array  # bool[problems, batch, num_children], the row is in use
    prior_logits: Array  # f32[problems, batch, num_children], −inf where selection takes none
    worth: Array  # f32[problems, batch, num_children]
    terminal: Array  # bool[problems, batch, num_children], the child is never expanded
    out_of_room: Array  # bool[problems, batch], children are missing for want of room
    fields: Mapping[str, Array] = {}
    """More fields of the tree, each [problems, batch, num_children, …]."""


def enter(tree: MctsTree, leaves: Array, first_child: Array, children: Children) -> MctsTree:
    """Writes the rows of the children of leaves i32[problems, batch], NO_NODE for none."""
    wanted = leaves != NO_NODE
    exists = wanted & jnp.any(~jnp.isneginf(children.prior_logits), axis=2)
    rows = first_child[..., None] + jnp.arange(tree.num_children)
    rows = tree.or_unused(jnp.where(wanted[..., None], rows, NO_NODE))
    problem = tree.problems[..., None]

    def write(field: Array, values: Array) -> Array:
        return field.at[problem, rows].set(values, mode="drop")

    written = {
        "parent": jnp.where(children.made, leaves[..., None], NO_NODE),
        "prior_logits": children.prior_logits,
        "worth": children.worth,
        "terminal": children.terminal & children.made,
        **children.fields,
    }
    parents = tree.or_unused(jnp.where(exists, leaves, NO_NODE))
    return tree.replace(
        **{name: write(getattr(tree, name), values) for name, values in written.items()},
        first_child=tree.first_child.at[tree.problems, parents].set(first_child, mode="drop"),
        num_nodes=tree.num_nodes + jnp.sum(wanted, axis=1) * tree.num_children,
    )


def evaluate(
    tree: MctsTree, leaves: Array, children: Children, config: SimulationConfig
) -> tuple[MctsTree, Array, Array]:
    """What the walks to the leaves are worth, once the children are known.

    Returns:
      The tree, in which leaves without a child are dead; i32[problems, batch]: the child that the
      walk ends at, the likeliest, NO_NODE where there is none; f32[problems, batch].
    """
    wanted = leaves != NO_NODE
    exists = ~jnp.isneginf(children.prior_logits)
    alive = wanted & jnp.any(exists, axis=2)
    # Fresh siblings differ by their priors alone, whatever the rule.
    likeliest = jnp.argmax(children.prior_logits, axis=2)
    worth = jnp.take_along_axis(children.worth, likeliest[..., None], axis=2)[..., 0]
    own = jnp.take_along_axis(tree.worth, jnp.maximum(leaves, ROOT), axis=1)
    own = jnp.where(children.out_of_room, own, config.dead_value)
    place = (tree.problems, tree.or_unused(jnp.where(wanted & ~alive, leaves, NO_NODE)))
    tree = tree.replace(
        worth=tree.worth.at[place].set(own, mode="drop"),
        dead=tree.dead.at[place].set(True, mode="drop"),
    )
    first = jnp.take_along_axis(tree.first_child, jnp.maximum(leaves, ROOT), axis=1)
    return tree, jnp.where(alive, first + likeliest, NO_NODE), jnp.where(alive, worth, own)


def back_up_leaves(
    tree: MctsTree,
    leaves: Array,
    ends: Array,
    worth: Array,
    children: Children,
    config: SimulationConfig,
) -> MctsTree:
    """Ends the walks to leaves: visits the children i32[problems, batch] they end at, adds up.

    A leaf's own visit was counted, and its virtual loss taken, when the walk met it. Opening a root
    is not a walk.
    """
    is_root = leaves == ROOT
    tree = _visit(tree, jnp.where(is_root, NO_NODE, ends), worth)
    loss = config.virtual_loss if config.batch > 1 else 0.0
    walked = jnp.where(is_root, NO_NODE, leaves)
    tree = back_up(tree, walked, jnp.zeros_like(leaves), worth + loss)
    # A root that is expanded for the first time is visited with the mean of its children.
    opened = is_root & (ends != NO_NODE) & (tree.visits[:, ROOT, None] == 0)
    exists = ~jnp.isneginf(children.prior_logits)
    mean = jnp.mean(children.worth, axis=2, where=exists)
    return _visit(tree, jnp.where(opened, ROOT, NO_NODE), mean)


def _visit(tree: MctsTree, nodes: Array, worths: Array) -> MctsTree:
    """Counts a visit of nodes i32[problems, n], not of their ancestors; NO_NODE for none."""
    place = (tree.problems, tree.or_unused(nodes))
    return tree.replace(
        visits=tree.visits.at[place].add(1, mode="drop"),
        worth_sum=tree.worth_sum.at[place].add(worths, mode="drop"),
    )
