"""Values of paths from the values of their thoughts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import jax.numpy as jnp
from jax import Array

Aggregate = Literal["last", "min", "prod", "sum"]
"""How the values of a path's steps become its own; as in Hugging Face's search-and-learn, and the
sum, for log-probabilities. Products are for values in [0, 1]."""

_COMBINE: dict[str, Callable[[Array, Array], Array]] = {
    "last": lambda path, thought: thought,
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


def aggregate(how: Aggregate, path: Array, thought: Array, first: Array | bool = False) -> Array:
    """f32[...], the value of a path with one more thought; −inf where that has been rejected.

    Args:
      how: the rule.
      path: f32[...], of the path before.
      thought: f32[...], of the thought.
      first: bool[], there was no thought before, and `path` means nothing.
    """
    combined = jnp.where(first, thought, _COMBINE[how](path, thought))
    return jnp.where(jnp.isneginf(thought), -jnp.inf, combined)
