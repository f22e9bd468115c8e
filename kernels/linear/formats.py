"""Formats of a linear layer's weight: pytrees that say which arrays they take and what they mean.

A format has a plain-XLA form, `dequantize`, and loads for the Triton kernels, which `loads` names
by the format's class.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


class Weight(Protocol):
    """A matrix of a linear layer, in Hugging Face's order: a row holds an output's weights."""

    @property
    def values(self) -> Array:
        """The array that takes most of the bytes, rows first; what a kernel before prefetches."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[outputs, depth] of the matrix that it stands for."""

    @property
    def dtype(self) -> jnp.dtype:
        """The narrowest dtype to which `dequantize` loses nothing."""

    @property
    def nbytes(self) -> int:
        """Bytes that a product reads of it."""

    def dequantize(self, dtype: DTypeLike) -> Array:
        """The matrix [outputs, depth]."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Dense:
    """A matrix as it is."""

    values: Array  # [outputs, depth]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> jnp.dtype:
        return self.values.dtype

    @property
    def nbytes(self) -> int:
        return self.values.nbytes

    def dequantize(self, dtype: DTypeLike) -> Array:
        """The matrix [outputs, depth], rounded where `dtype` is narrower."""
        return self.values.astype(dtype)
