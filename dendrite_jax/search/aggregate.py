"""Values of paths from the values of their steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array

Aggregate = Literal["last", "min", "prod", "sum"]
"""How the values of a path's steps become its own; as in Hugging Face's search-and-learn, and the
sum, for log-probabilities. Products are for values in [0, 1]."""

_COMBINE: dict[str, Callable[[Array, Array], Array]] = {
    "last": lambda path, step: step,
    "min": jnp.minimum,
    "prod": jnp.multiply,
    "sum": jnp.add,
}


def check_aggregate(how: str) -> None:
    """Raises ValueError for what is not an Aggregate."""
    if how not in _COMBINE:
        raise ValueError(
            f"aggregate is {how!r}; it must be one of {', '.join(get_args(Aggregate))}"
        )


def aggregate(how: Aggregate, path: Array, step: Array, first: Array | bool = False) -> Array:
    """f32[...], the value of a path with one more step; −inf where the step has been rejected.

    Args:
      how: the rule.
      path: f32[...], of the path before.
      step: f32[...].
      first: bool[], there was no step before, and `path` means nothing.
    """
    combined = jnp.where(first, step, _COMBINE[how](path, step))
    return jnp.where(jnp.isneginf(step), -jnp.inf, combined)
