"""Entering the children that an expansion made, and ending its simulations."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.mcts.config import SimulationConfig
from dendrite_jax.search.mcts.statistics import Statistics, back_up
from dendrite_jax.search.tree import NO_NODE, ROOT


class Expansion(NamedTuple):
    """The children of the nodes of a batch."""

    prior_logits: Array  # f32[problems, batch, num_children], −inf where there is no child
    value: Array  # f32[problems, batch, num_children]
    terminal: Array  # bool[problems, batch, num_children], the child is never expanded
    out_of_room: Array  # bool[problems, batch], children are missing for want of room


def attach(
    tree: Statistics,
    leaves: Array,
    first_child: Array,
    expansion: Expansion,
    config: SimulationConfig,
) -> Statistics:
    """Enters the children of leaves, and ends the simulation of each at its likeliest child."""
    wanted = leaves != NO_NODE
    opens = leaves == ROOT
    exists = ~jnp.isneginf(expansion.prior_logits)
    alive = wanted & jnp.any(exists, axis=2)
    tree = _enter(tree, leaves, first_child, expansion, alive)

    # Fresh siblings differ by their priors alone, whatever the rule.
    best = jnp.argmax(expansion.prior_logits, axis=2)[..., None]
    value = jnp.take_along_axis(expansion.value, best, axis=2)[..., 0]
    own = jnp.take_along_axis(tree.value, jnp.maximum(leaves, ROOT), axis=1)
    own = jnp.where(expansion.out_of_room, own, config.dead_value)
    tree = _close(tree, jnp.where(wanted & ~alive, leaves, NO_NODE), own)
    tree = _visit(tree, jnp.where(alive & ~opens, first_child + best[..., 0], NO_NODE), value)
    loss = config.virtual_loss if config.batch > 1 else 0.0
    simulated = jnp.where(wanted & ~opens, leaves, NO_NODE)
    backed_up = jnp.where(alive, value, own) + loss
    tree = back_up(tree, simulated, jnp.zeros_like(leaves), backed_up)

    first_visit = opens & alive & (tree.visits[:, ROOT, None] == 0)
    mean = jnp.mean(expansion.value, axis=2, where=exists)
    return _visit(tree, jnp.where(first_visit, ROOT, NO_NODE), mean)


def _enter(
    tree: Statistics, leaves: Array, first_child: Array, expansion: Expansion, alive: Array
) -> Statistics:
    """Writes the rows of the children; those that do not exist keep theirs, out of reach."""
    rows = first_child[..., None] + jnp.arange(tree.num_children)
    rows = tree.or_unused(jnp.where(leaves[..., None] != NO_NODE, rows, NO_NODE))
    problem = tree.problems[..., None]
    parents = jnp.broadcast_to(leaves[..., None], rows.shape)
    expanded = tree.or_unused(jnp.where(alive, leaves, NO_NODE))
    made = jnp.sum(leaves != NO_NODE, axis=1) * tree.num_children

    def write(field: Array, values: Array) -> Array:
        return field.at[problem, rows].set(values, mode="drop")

    first_children = tree.first_child.at[tree.problems, expanded].set(first_child, mode="drop")
    return tree.replace(
        parent=write(tree.parent, parents),
        first_child=first_children,
        prior_logits=write(tree.prior_logits, expansion.prior_logits),
        value=write(tree.value, expansion.value),
        terminal=write(tree.terminal, expansion.terminal),
        num_nodes=tree.num_nodes + made,
    )


def _close(tree: Statistics, nodes: Array, values: Array) -> Statistics:
    """Makes nodes i32[problems, n] terminal, of the given values; NO_NODE for none."""
    place = (tree.problems, tree.or_unused(nodes))
    return tree.replace(
        value=tree.value.at[place].set(values, mode="drop"),
        terminal=tree.terminal.at[place].set(True, mode="drop"),
    )


def _visit(tree: Statistics, nodes: Array, values: Array) -> Statistics:
    """Counts a visit of nodes i32[problems, n], not of their ancestors; NO_NODE for none."""
    place = (tree.problems, tree.or_unused(nodes))
    return tree.replace(
        visits=tree.visits.at[place].add(1, mode="drop"),
        value_sum=tree.value_sum.at[place].add(values, mode="drop"),
    )
