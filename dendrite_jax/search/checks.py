"""Checks of what a caller gives to a search."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from dendrite_jax.engine import check_key


def check_positive(config: object, *fields: str) -> None:
    """Raises ValueError for the first of the fields that is below 1."""
    for field in fields:
        value = getattr(config, field)
        if value < 1:
            raise ValueError(f"{field} is {value}; it must be at least 1")


def problem_keys(key: Any, problems: int) -> Array:
    """A random key a problem, [problems], of one key or of one a problem.

    Raises:
      ValueError: not typed keys (`jax.random.key`), or another number of them.
    """
    check_key(key, batched=None)
    if key.ndim == 0:
        return jax.random.split(key, problems)
    if key.shape != (problems,):
        raise ValueError(
            f"key has shape {key.shape}; it must be one key, or one for each of {problems} problems"
        )
    return key
