"""Keeping the subtree below a child of the root."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.mcts.statistics import Statistics
from dendrite_jax.search.tree import NO_NODE, ROOT


def reroot(tree: Statistics, action: Array) -> tuple[Statistics, Array]:
    """Makes a child of each root the new root and drops what is not below it.

    Args:
      tree: the statistics.
      action: i32[problems], which child of the root, from 0; the tree is left empty and closed
        where there is no such child.

    Returns:
      The statistics, kept families closed up in their old order, and i32[problems, nodes]: the
      node that each row was before, NO_NODE for an unused one.
    """
    root = jnp.full(action.shape, ROOT)
    first = tree.at(tree.first_child, root)
    named = (action >= 0) & (action < tree.num_children) & (first != NO_NODE)
    child = jnp.where(named, first + action, ROOT)
    chosen = jnp.where(jnp.isneginf(tree.at(tree.prior_logits, child)), NO_NODE, child)
    origin = _close_up(tree, _is_below(tree, chosen), chosen)

    used = origin != NO_NODE
    source = jnp.maximum(origin, 0)
    nodes = tree.parent.shape[1]
    row = jnp.broadcast_to(jnp.arange(nodes), origin.shape)
    now = (
        jnp.full(origin.shape, NO_NODE)
        .at[tree.problems, tree.or_unused(origin)]
        .set(row, mode="drop")
    )

    def move(field: Array, fill: float | bool | int) -> Array:
        return jnp.where(used, jnp.take_along_axis(field, source, axis=1), fill)

    def follow(link: Array) -> Array:
        there = move(link, NO_NODE)
        there_now = jnp.take_along_axis(now, jnp.maximum(there, 0), axis=1)
        return jnp.where(there == NO_NODE, NO_NODE, there_now)

    # A root has been visited, and is no one's child.
    visits, value = move(tree.visits, 0), move(tree.value, 0.0)
    fresh = (visits == 0) & (row == ROOT) & used
    terminal = move(tree.terminal, False)
    moved = tree.replace(
        parent=follow(tree.parent),
        first_child=follow(tree.first_child),
        prior_logits=move(tree.prior_logits, -jnp.inf).at[:, ROOT].set(-jnp.inf),
        value=value,
        visits=visits + fresh,
        value_sum=jnp.where(fresh, value, move(tree.value_sum, 0.0)),
        terminal=terminal.at[:, ROOT].set(terminal[:, ROOT] | (chosen == NO_NODE)),
        num_nodes=jnp.maximum(jnp.sum(used, axis=1), 1),
    )
    return moved, origin


def _is_below(tree: Statistics, top: Array) -> Array:
    """bool[problems, nodes]: the node is `top` i32[problems] or below it."""
    nodes = tree.parent.shape[1]
    below = jnp.arange(nodes) == top[:, None]
    ancestor = jnp.maximum(tree.parent, ROOT)
    # Each round doubles the distance that is looked up.
    for _ in range((nodes - 1).bit_length()):
        below |= jnp.take_along_axis(below, ancestor, axis=1)
        ancestor = jnp.take_along_axis(ancestor, ancestor, axis=1)
    return below


def _close_up(tree: Statistics, below: Array, top: Array) -> Array:
    """The old node i32[problems, nodes] of each new row: `top`, then the families below it."""
    size = tree.num_children
    families = (tree.parent.shape[1] - 1) // size
    first = 1 + jnp.arange(families) * size
    kept = jnp.take_along_axis(below, jnp.maximum(tree.parent[:, first], ROOT), axis=1)
    order = jnp.argsort(~kept, axis=1, stable=True)
    still = jnp.take_along_axis(kept, order, axis=1)
    start = jnp.where(still, first[order], NO_NODE)[..., None]
    members = jnp.where(start == NO_NODE, NO_NODE, start + jnp.arange(size))
    members = members.reshape(top.shape[0], -1)
    spare = tree.parent.shape[1] - 1 - members.shape[1]
    members = jnp.pad(members, ((0, 0), (0, spare)), constant_values=NO_NODE)
    return jnp.concatenate([top[:, None], members], axis=1)
