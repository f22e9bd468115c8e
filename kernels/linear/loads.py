"""How the Triton kernels read a tile of a weight, a function for each format.

A function takes the arrays of its format, the numbers of the tile's rows and columns, and which of
its elements there are; it gives the tile [rows, columns] in a dtype of the tensor cores, 0 where
there is no element. Every weight is read once a product, so nothing keeps it in the cache.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from dendrite_jax.kernels.dispatch import UnsupportedError
from dendrite_jax.kernels.launch import DTYPES
from dendrite_jax.kernels.linear.formats import Dense, Weight


@triton.jit
def dense_tile(values, rows, columns, kept, K: tl.constexpr):
    """A tile of values[N, K]; `kept` is None where all of it is inside."""
    at = values + rows[:, None].to(tl.int64) * K + columns[None, :]
    if kept is None:
        tile = tl.load(at, eviction_policy="evict_first")
    else:
        tile = tl.load(at, mask=kept, other=0.0, eviction_policy="evict_first")
    return tile


_TILES: dict[type[Any], triton.JITFunction] = {Dense: dense_tile}


def tile_of(weight: Weight) -> triton.JITFunction:
    """The function that reads a tile of such a weight.

    Raises:
      UnsupportedError: the kernels were not written for the format or its dtype.
    """
    if type(weight) not in _TILES:
        raise UnsupportedError(f"weight format {type(weight).__name__}: the kernel lacks its loads")
    if weight.dtype not in DTYPES:
        raise UnsupportedError(f"weight dtype {weight.dtype}: the kernel takes bf16, fp16, fp32")
    return _TILES[type(weight)]
