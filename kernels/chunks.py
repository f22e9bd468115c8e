"""Attention in plain XLA that reads blocks a few columns of the table at a time.

How many turns that takes is known when it runs, not when it is traced, so that a wide table costs
nothing until its columns are filled. Partial results are kept as an online softmax (Milakov &
Gimelshein 2018): a peak, a sum of weights and a sum of weighted values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.batching import largest_mapped

CHUNK_ELEMENTS = 1 << 18
"""Elements of the keys of a turn, so that they stay in a core's cache."""
MOST_COLUMNS = 16
"""Of a turn; a few blocks more than are held cost less than another turn."""
LOWEST = -1.0e30
"""Where a peak starts: stands for minus infinity, but differences of it are not NaN."""


class Columns(NamedTuple):
    """Which columns of a table are read."""

    size: Array  # i32[], how many
    number: Callable[[Array], Array]  # from places in the list of them, i32[n], to columns i32[n]


class _Softmax(NamedTuple):
    """Attention over the keys read so far."""

    peak: Array  # f32[rows, kv_heads, queries, group], the largest score
    total: Array  # f32[rows, kv_heads, queries, group], the sum of weights exp(score − peak)
    acc: Array  # f32[rows, kv_heads, queries, group, head_dim], the sum of weighted values


def columns_of_a_turn(rows: int, k_pool: Array, table: Array) -> int:
    """How many columns of i32[rows, max_blocks] are read at a time, of a pool like `k_pool`."""
    elements = rows * math.prod(k_pool.shape[2:])
    return max(1, min(MOST_COLUMNS, table.shape[1], CHUNK_ELEMENTS // elements))


def attend_columns(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    columns: Columns,
    visible: tuple[Array, Array],
    *,
    scale: float,
    softcap: float | None,
) -> tuple[Array, Array]:
    """Attention of the queries of each row over the row's blocks in some columns.

    Args:
      q: [rows, queries, heads, head_dim].
      k_pool, v_pool: [layers, blocks, kv_heads, block_size, head_dim].
      layer: which layer of the pool to read.
      table: i32[rows, max_blocks], −1 for none.
      columns: the columns to read. Under `vmap` problems may have different ones; the loop over
        them is as long as the longest list.
      visible: i32[rows, queries] twice, the first position that a query sees and the first that it
        sees no longer.
      scale: multiplies the scores.
      softcap: scores become `softcap * tanh(scores / softcap)`; None leaves them.

    Returns:
      The output f32[rows, queries, heads, head_dim] and the log-sum-exp of the scores
      f32[rows, queries, heads]; zeros and −inf for a query that sees nothing there.
    """
    rows, queries, heads, head_dim = q.shape
    _, _, kv_heads, block_size, _ = k_pool.shape
    width = columns_of_a_turn(rows, k_pool, table)
    grouped = q.reshape(rows, queries, kv_heads, heads // kv_heads, head_dim)
    grouped = jnp.moveaxis(grouped, 2, 1)  # [rows, kv_heads, queries, group, head_dim]

    def turn(number: Array, softmax: _Softmax) -> _Softmax:
        place = number * width + jnp.arange(width)
        column = columns.number(place)
        block = jnp.take(table, column, axis=1, mode="fill", fill_value=-1)
        position = column[:, None] * block_size + jnp.arange(block_size)  # [width, block_size]
        real = (place < columns.size) & (block >= 0)  # [rows, width]
        first, end = (bound[:, :, None, None] for bound in visible)
        seen = (first <= position) & (position < end) & real[:, None, :, None]
        block = jnp.maximum(block, 0)
        # What no query sees may hold anything, and zero times NaN is NaN.
        any_sees = jnp.any(seen, axis=1)[:, :, None, :, None]
        values = jnp.where(any_sees, v_pool[layer, block], 0)
        return _add_keys(softmax, grouped, k_pool[layer, block], values, seen, scale, softcap)

    shape = grouped.shape[:-1]
    softmax = _Softmax(
        jnp.full(shape, LOWEST), jnp.zeros(shape), jnp.zeros(grouped.shape, jnp.float32)
    )
    if width == table.shape[1]:
        softmax = turn(jnp.int32(0), softmax)
    else:
        turns = largest_mapped(-(-columns.size // width))
        softmax = jax.lax.fori_loop(0, turns, turn, softmax)
    peak, total, acc = softmax
    filled = jnp.where(total > 0, total, 1.0)
    # A query that sees nothing may have met another's infinite values.
    out = jnp.where((total > 0)[..., None], acc / filled[..., None], 0.0)
    lse = jnp.where(total > 0, peak + jnp.log(filled), -jnp.inf)
    return (
        jnp.moveaxis(out, 1, 2).reshape(rows, queries, heads, head_dim),
        jnp.moveaxis(lse, 1, 2).reshape(rows, queries, heads),
    )


def _add_keys(
    softmax: _Softmax,
    q: Array,
    keys: Array,
    values: Array,
    seen: Array,
    scale: float,
    softcap: float | None,
) -> _Softmax:
    """The softmax with more keys in it.

    Args:
      softmax: over the keys before.
      q: [rows, kv_heads, queries, group, head_dim].
      keys, values: [rows, width, kv_heads, block_size, head_dim].
      seen: bool[rows, queries, width, block_size].
      scale, softcap: as in `attend_columns`.
    """
    scores = scale * jnp.einsum("rkqgd,rckbd->rkqgcb", q, keys, preferred_element_type=jnp.float32)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = jnp.where(seen[:, None, :, None], scores, -jnp.inf)
    peak = jnp.maximum(softmax.peak, jnp.max(scores, axis=(-2, -1)))
    shrink = jnp.exp(softmax.peak - peak)
    weights = jnp.exp(scores - peak[..., None, None])
    total = softmax.total * shrink + jnp.sum(weights, axis=(-2, -1))
    added = jnp.einsum(
        "rkqgcb,rckbd->rkqgd",
        weights.astype(values.dtype),
        values,
        preferred_element_type=jnp.float32,
    )
    return _Softmax(peak, total, softmax.acc * shrink[..., None] + added)
