"""Which thoughts a search goes on with: the last of the three pieces of a search."""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.tree import NO_NODE


class Select(Protocol):
    """A pure function that picks up to k of n scored candidates of each problem."""

    def __call__(self, value: Array, k: int, keys: Array) -> Array:
        """Indices i32[problems, k] into values f32[problems, n], −1 where there are fewer.

        A value of −inf is no candidate. Picked ones stand first. `keys` is a typed key array
        [problems] for a random choice.
        """
        ...


def best_first(value: Array, k: int, keys: Array) -> Array:
    """Selects the k best, in order."""
    del keys
    _, index = best(k, value, jnp.broadcast_to(jnp.arange(value.shape[1]), value.shape))
    return index


def best(k: int, value: Array, item: Array) -> tuple[Array, Array]:
    """The k best values [problems, k], best first, and their items; NO_NODE where value is −inf."""
    if k > value.shape[1]:
        padding = ((0, 0), (0, k - value.shape[1]))
        value = jnp.pad(value, padding, constant_values=-jnp.inf)
        item = jnp.pad(item, padding, constant_values=NO_NODE)
    values, index = jax.lax.top_k(value, k)
    items = jnp.take_along_axis(item, index, axis=1)
    return values, jnp.where(jnp.isneginf(values), NO_NODE, items)


def drop_duplicates(value: Array, merge_key: Array) -> Array:
    """Values [problems, n] with −inf for a thought whose key a better or earlier one has."""
    order = jnp.argsort(-value, axis=1, stable=True)
    ranked = jnp.take_along_axis(merge_key, order, axis=1)
    n = value.shape[1]
    earlier = jnp.tril(jnp.ones((n, n), bool), k=-1)
    repeated = jnp.any((ranked[:, :, None] == ranked[:, None, :]) & earlier, axis=2)
    problem = jnp.arange(value.shape[0])[:, None]
    repeated = jnp.zeros_like(repeated).at[problem, order].set(repeated)
    return jnp.where(repeated, -jnp.inf, value)


def is_chosen(index: Array, n: int) -> Array:
    """bool[problems, n]: which of n candidates the indices i32[problems, k] name; −1 names none."""
    problem = jnp.arange(index.shape[0])[:, None]
    named = jnp.where(index >= 0, index, n)
    return jnp.zeros((index.shape[0], n), bool).at[problem, named].set(True, mode="drop")
