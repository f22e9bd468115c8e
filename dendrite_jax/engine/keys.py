"""Checks on random keys, wherever one is taken."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

IMPLEMENTATION = "threefry2x32"
"""Of all keys here: a branch keeps the two words of its own, and a draw folds its position in."""


def check_key(key: Any, field: str = "key", *, batched: bool | None = False) -> None:
    """Raises ValueError for what is no typed random key.

    `jax.random.key` keeps the lower 32 bits of its seed: 2³² gives the key of 0.

    Args:
      key: what was given; a tracer will do.
      field: what the message calls it.
      batched: whether it is an array [n] of keys; None takes one key or several.
    """
    example = "jax.random.split(jax.random.key(0), n)" if batched else "jax.random.key(0)"
    takes = f"it takes typed random {'keys [n]' if batched else 'keys'}, such as {example}"
    if not (hasattr(key, "dtype") and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key)):
        raise ValueError(f"{field} is {_kind(key)}; {takes}")
    if (found := str(jax.random.key_impl(key))) != IMPLEMENTATION:
        raise ValueError(f"{field} is of the implementation {found}; {takes} of {IMPLEMENTATION}")
    if key.ndim > 1 or (batched is not None and key.ndim != int(batched)):
        raise ValueError(f"{field} has the shape {list(key.shape)}; {takes}")


def _kind(value: Any) -> str:
    if isinstance(value, jax.Array | np.ndarray):
        if value.dtype == np.uint32 and value.shape[-1:] == (2,):
            return "an array of raw words (of a legacy PRNGKey)"
        return f"{value.dtype}{list(value.shape)}"
    return repr(value)
