"""Which thoughts of a level a search goes on with."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.levels.config import Level
from dendrite_jax.search.select import Select


def keep_selected(level: Level, select: Select, kept: int) -> Array:
    """i32[problems, kept]: what `select` picks of the thoughts that do not end their path."""
    return select(jnp.where(level.ends, -jnp.inf, level.value), kept, level.keys)


def keep_best_of_subtrees(level: Level, per_subtree: int) -> Array:
    """The best of every `per_subtree` proposals in turn, unless it ends its path; −1 for none."""
    problems, proposals = level.value.shape
    value = level.value.reshape(problems, -1, per_subtree)
    first = jnp.arange(0, proposals, per_subtree)
    chosen = first + jnp.argmax(value, axis=2)
    goes_on = ~jnp.isneginf(jnp.max(value, axis=2))
    goes_on &= ~jnp.take_along_axis(level.ends, chosen, axis=1)
    return jnp.where(goes_on, chosen, -1)
