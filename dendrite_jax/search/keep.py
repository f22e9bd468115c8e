"""Which thoughts of a level a search goes on with: the rules of `levels`."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.levels import Keep, Level
from dendrite_jax.search.select import Select


def growing(select: Select, kept: int) -> Keep:
    """What `select` picks of the thoughts that do not end their path."""

    def keep(level: Level) -> Array:
        return select(jnp.where(level.ends, -jnp.inf, level.value), kept, level.keys)

    return keep


def best_of_subtrees(per_subtree: int) -> Keep:
    """The best of every `per_subtree` proposals in turn, unless it ends its path."""

    def keep(level: Level) -> Array:
        problems, proposals = level.value.shape
        value = level.value.reshape(problems, -1, per_subtree)
        first = jnp.arange(0, proposals, per_subtree)
        chosen = first + jnp.argmax(value, axis=2)
        goes_on = ~jnp.isneginf(jnp.max(value, axis=2))
        goes_on &= ~jnp.take_along_axis(level.ends, chosen, axis=1)
        return jnp.where(goes_on, chosen, -1)

    return keep
