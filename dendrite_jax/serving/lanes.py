"""Numbers of lanes and tokens rounded to a few, so that a script compiles a few programs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from dendrite_jax.cache import NO_BRANCH
from dendrite_jax.engine import NO_TOKEN, Sampling

SMALLEST_BATCH = 4
"""Lanes of a call of two or three: a matrix product takes no longer for four rows than for two."""
SMALLEST_CAPACITY = 16
"""New tokens that the smallest program has room for."""
SMALLEST_STOPS = 4
"""Stop tokens that the smallest program has room for."""


def power_of_two(number: int, smallest: int = 1) -> int:
    """The least power of two that is at least both."""
    return max(smallest, 1 << (number - 1).bit_length())


def lane_bucket(lanes: int) -> int:
    """The padded number of lanes: 1, or a power of two from 4 on."""
    return 1 if lanes <= 1 else power_of_two(lanes, SMALLEST_BATCH)


def capacity_bucket(max_new_tokens: int) -> int:
    """The static capacity of a generation of so many tokens."""
    return power_of_two(max_new_tokens, SMALLEST_CAPACITY)


def pad_ids(ids: Iterable[int]) -> np.ndarray:
    """Branch ids i32[lane_bucket], idle lanes last."""
    given = list(ids)
    padded = np.full(lane_bucket(len(given)), NO_BRANCH, np.int32)
    padded[: len(given)] = given
    return padded


def pad_stop_tokens(tokens: Sequence[int]) -> np.ndarray:
    """Stop tokens i32[n], padded with NO_TOKEN; none and some are one program."""
    padded = np.full(power_of_two(len(tokens), SMALLEST_STOPS), NO_TOKEN, np.int32)
    padded[: len(tokens)] = tokens
    return padded


def pad_sampling(sampling: Sampling, lanes: int) -> Sampling:
    """The fields that are on, one value for each of `lane_bucket(lanes)` lanes.

    Raises:
      ValueError: a field has neither one value nor one for each lane.
    """
    padded: dict[str, Any] = {}
    for field in fields(sampling):
        value = getattr(sampling, field.name)
        if value is None:
            continue
        values = np.asarray(value, np.int32 if field.name == "top_k" else np.float32)
        if values.ndim > 1 or values.size not in (1, lanes):
            raise ValueError(
                f"sampling.{field.name} has {values.size} values; it must have one, or one for "
                f"each of {lanes} branches"
            )
        row = np.broadcast_to(values.reshape(-1), lanes)
        padded[field.name] = np.pad(row, (0, lane_bucket(lanes) - lanes), mode="edge")
    return Sampling(**padded)
