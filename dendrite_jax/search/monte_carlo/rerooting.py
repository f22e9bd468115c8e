"""Keeping the subtree below a child of the root."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.monte_carlo.tree import MctsTree
from dendrite_jax.search.outcome import COMPLETE, NO_ROOT
from dendrite_jax.search.tree import NO_NODE, ROOT


def keep_below(tree: MctsTree, action: Array) -> tuple[MctsTree, Array]:
    """Makes a child of each root the new root and drops what is not below it; frees no branch.

    Args:
      tree: the tree.
      action: i32[problems], which child of the root, from 0; the tree is left empty and closed
        where there is no such child.

    Returns:
      The tree, kept families closed up in their old order, and i32[problems, nodes]: the
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

    empty = MctsTree.of_roots(
        action.shape[0], nodes, tree.num_children, thought_tokens=tree.tokens.shape[2]
    )

    def move(field: Array, fill: Array) -> Array:
        is_used = used.reshape(*used.shape, *[1] * (field.ndim - 2))
        return jnp.where(is_used, field[tree.problems, source], fill)

    def follow(link: Array) -> Array:
        there = move(link, jnp.int32(NO_NODE))
        there_now = jnp.take_along_axis(now, jnp.maximum(there, 0), axis=1)
        return jnp.where(there == NO_NODE, NO_NODE, there_now)

    per_node = [name for name in vars(tree) if name not in ("num_nodes", "num_children")]
    moved = empty.replace(
        **{name: move(getattr(tree, name), getattr(empty, name)) for name in per_node}
    )
    # The new root is a prompt: its own tokens are before every path. It has been visited, and is no
    # one's child.
    at_root = (row == ROOT) & used
    fresh = at_root & (moved.visits == 0)
    of_prompt = {
        name: getattr(moved, name).at[:, ROOT].set(getattr(empty, name)[:, ROOT])
        for name in ("tokens", "raw_logprob", "logprob", "prior_logits")
    }
    moved = moved.replace(
        **of_prompt,
        parent=follow(tree.parent),
        first_child=follow(tree.first_child),
        depth=jnp.maximum(moved.depth - 1, 0),
        visits=moved.visits + fresh,
        worth_sum=jnp.where(fresh, moved.worth, moved.worth_sum),
        dead=moved.dead.at[:, ROOT].set(moved.dead[:, ROOT] | (chosen == NO_NODE)),
        outcome=moved.outcome.at[:, ROOT].set(jnp.where(chosen == NO_NODE, NO_ROOT, COMPLETE)),
        num_nodes=jnp.maximum(jnp.sum(used, axis=1), 1),
    )
    return moved, origin


def _is_below(tree: MctsTree, top: Array) -> Array:
    """bool[problems, nodes]: the node is `top` i32[problems] or below it."""
    nodes = tree.parent.shape[1]
    below = jnp.arange(nodes) == top[:, None]
    ancestor = jnp.maximum(tree.parent, ROOT)
    # Each round doubles the distance that is looked up.
    for _ in range((nodes - 1).bit_length()):
        below |= jnp.take_along_axis(below, ancestor, axis=1)
        ancestor = jnp.take_along_axis(ancestor, ancestor, axis=1)
    return below


def _close_up(tree: MctsTree, below: Array, top: Array) -> Array:
    """The old node i32[problems, nodes] of each new row: `top`, then the families below it."""
    size = tree.num_children
    families = (tree.parent.shape[1] - 1) // size
    first = 1 + jnp.arange(families) * size
    # Of a family that found no room for some children, the others know whose it is.
    members = first[:, None] + jnp.arange(size)
    owner = jnp.max(tree.parent[:, members], axis=2)
    kept = (owner != NO_NODE) & jnp.take_along_axis(below, jnp.maximum(owner, ROOT), axis=1)
    order = jnp.argsort(~kept, axis=1, stable=True)
    still = jnp.take_along_axis(kept, order, axis=1)
    start = jnp.where(still, first[order], NO_NODE)[..., None]
    members = jnp.where(start == NO_NODE, NO_NODE, start + jnp.arange(size))
    members = members.reshape(top.shape[0], -1)
    spare = tree.parent.shape[1] - 1 - members.shape[1]
    members = jnp.pad(members, ((0, 0), (0, spare)), constant_values=NO_NODE)
    return jnp.concatenate([top[:, None], members], axis=1)
