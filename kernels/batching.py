"""Folding a mapped axis away, so that one launch of a kernel serves a whole `vmap`.

A kernel's lanes (or rows) of all problems become the lanes of one call. Pools that differ between
problems [size, layers, blocks, ...] are the same memory as one pool [size * layers, blocks, ...]
whose problem p has the block ids of problem 0 plus p * layers * blocks: nothing is copied.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from dendrite_jax.kernels.dispatch import UnsupportedError


def batch(array: Array, batched: bool, size: int) -> Array:
    """The array with a leading axis of problems, repeated if it has none."""
    return array if batched else jnp.broadcast_to(array, (size, *array.shape))


def fold(array: Array, batched: bool, size: int) -> Array:
    """[size, n, ...], or [n, ...] for every problem, as [size * n, ...]."""
    array = batch(array, batched, size)
    return array.reshape(-1, *array.shape[2:])


def unfold(array: Array, size: int) -> Array:
    """[size * n, ...] as [size, n, ...]."""
    return array.reshape(size, -1, *array.shape[1:])


def fold_pool(pool: Array) -> Array:
    """[size, layers, blocks, ...] as [size * layers, blocks, ...]."""
    return pool.reshape(-1, *pool.shape[2:])


def fold_blocks(ids: Array, pool: Array, limit: int) -> Array:
    """Block ids [size, n, ...] into `fold_pool` of [size, layers, blocks, ...], as [size * n, ...].

    Ids outside [0, limit) name no block: negative ones become −1, others `size * layers * blocks`.
    """
    size, stride = pool.shape[0], pool.shape[1] * pool.shape[2]
    first = stride * jnp.arange(size, dtype=ids.dtype).reshape(-1, *[1] * (ids.ndim - 1))
    moved = jnp.where(ids < limit, ids + first, size * stride)
    return jnp.where(ids < 0, -1, moved).reshape(-1, *ids.shape[2:])


def fold_cache(
    k_pool: Array, v_pool: Array, table: Array, batched: tuple[bool, bool, bool], size: int
) -> tuple[Array, Array, Array]:
    """Both pools and a block table [n, max_blocks] as one problem's, each mapped or not.

    Pools that no problem has for itself stay as they are, and tables keep their block ids.
    """
    table = batch(table, batched[2], size)
    if not any(batched[:2]):
        return k_pool, v_pool, table.reshape(-1, table.shape[-1])
    k_pool, v_pool = batch(k_pool, batched[0], size), batch(v_pool, batched[1], size)
    table = fold_blocks(table, k_pool, k_pool.shape[1] * k_pool.shape[2])
    return fold_pool(k_pool), fold_pool(v_pool), table


def traced_layer(layer: int | Array) -> tuple[Array, ...]:
    """A layer number as what a `custom_vmap` function takes of it: nothing of an int."""
    return () if isinstance(layer, int) else (layer,)


def refuse_batched(name: str, flags: Any) -> None:
    """Raises UnsupportedError if an operand that kernels take once has the mapped axis."""
    if any_batched(*flags):
        raise UnsupportedError(f"under vmap the kernel takes one {name} for all problems")


def any_batched(*flags: Any) -> bool:
    """Whether one of several operands, some of them absent, has the mapped axis."""
    return any(flag is True for flag in flags)


@custom_vmap
def largest_mapped(value: Array) -> Array:
    """i32[]: the value itself; under `vmap` the largest of the mapped values, unmapped.

    For the bound of a loop, which then stays one loop for all problems.
    """
    return value


@largest_mapped.def_vmap
def _largest_of_batch(size: int, batched: list[bool], value: Array) -> tuple[Any, bool]:
    del size
    # Goes through the rule again, for a vmap around this one.
    return largest_mapped(jnp.max(value) if batched[0] else value), False
