"""How a level's proposals are shared out among the thoughts kept before it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.levels.config import LevelsLoop


def share_evenly(loop: LevelsLoop, proposals: int) -> Array:
    """Places i32[problems, proposals]: in turn the kept thoughts, which stand first."""
    alive = jnp.sum(loop.frontier >= 0, axis=1, keepdims=True)
    turn = jnp.arange(proposals) % jnp.maximum(alive, 1)
    return jnp.where(alive > 0, turn, -1)


def share_by_subtree(loop: LevelsLoop, proposals: int, per_subtree: int) -> Array:
    """Places i32[problems, proposals]: `per_subtree` for each place; all start at the root."""
    place = jnp.where(loop.level == 0, 0, jnp.arange(proposals) // per_subtree)
    return jnp.broadcast_to(place, (loop.frontier.shape[0], proposals))


def share_by_softmax(loop: LevelsLoop, width: int, temperature: float) -> Array:
    """Places i32[problems, width], by the softmax of the kept thoughts' values (REBASE).

    The width that answers have not taken goes to the kept thoughts, the best first: each takes its
    part, by exp(value / temperature), of what is left among those that are left, rounded up. Of
    equals the one that stands first in the frontier is first (Wu et al. 2024).
    """
    problem = jnp.arange(loop.nodes.shape[0])[:, None]
    own = loop.tree.value[problem, jnp.maximum(loop.nodes, 0)]
    own = jnp.where(loop.level == 0, 0.0, own)  # the root has no value
    own = jnp.where(loop.frontier >= 0, own, -jnp.inf)
    left = width - jnp.sum(loop.answers >= 0, axis=1)
    return jax.vmap(lambda own, left: _places(counts(own, left, temperature), width))(own, left)


def counts(value: Array, width: Array, temperature: float) -> Array:
    """i32[n] proposals for thoughts of value f32[n], `width` i32[] in all; none where −inf."""
    order = jnp.argsort(-value, stable=True)
    ranked = value[order]
    weight = jnp.exp((ranked - jnp.where(jnp.isneginf(ranked[0]), 0.0, ranked[0])) / temperature)
    # Sums from the worst up, so that the last thought's part is exactly all that is left.
    among_left = jnp.cumsum(weight[::-1])[::-1]

    def take(left: Array, part: tuple[Array, Array]) -> tuple[Array, Array]:
        weight, among = part
        count = jnp.ceil(left * weight / jnp.where(among > 0, among, 1.0)).astype(jnp.int32)
        return left - count, count

    _, ranked_counts = jax.lax.scan(take, jnp.maximum(width, 0), (weight, among_left))
    return jnp.zeros(value.shape, jnp.int32).at[order].set(ranked_counts)


def _places(counts: Array, width: int) -> Array:
    """i32[width]: each place i as often as counts i32[n] says, then −1."""
    end = jnp.cumsum(counts)
    place = jnp.searchsorted(end, jnp.arange(width), side="right")
    return jnp.where(jnp.arange(width) < end[-1], place, -1)
