"""Plain-XLA tree attention: what all lanes share is read once, and no more than lanes hold."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.chunks import Columns, attend_columns, columns_of_a_turn
from dendrite_jax.kernels.merge import merge_partials


def tree_attention(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    length: Array,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Array, Array]:
    """`dendrite_jax.kernels.tree_attention.tree_attention` in plain XLA."""
    first = jnp.zeros_like(length) if window is None else jnp.maximum(length - window, 0)
    out, lse = attend_prefixes(
        q[:, None], k_pool, v_pool, layer, table, (first, length), scale=scale, softcap=softcap
    )
    return out[:, 0].astype(q.dtype), lse[:, 0]


def attend_prefixes(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    visible: tuple[Array, Array],
    *,
    scale: float,
    softcap: float | None,
) -> tuple[Array, Array]:
    """Attention of some queries a lane, which all see the same of the lane's cached tokens.

    Where tables are wide, blocks that every lane sees whole are read once, as keys of one row that
    has the queries of all lanes. Others are read lane by lane.

    Args:
      q: [lanes, queries, heads, head_dim].
      k_pool, v_pool, layer, table, scale, softcap: as in `attend_columns`, a lane being a row.
      visible: i32[lanes] twice, the first position that a lane sees and the first that it sees no
        longer; the latter is 0 in an idle lane.

    Returns:
      The output f32[lanes, queries, heads, head_dim] and the log-sum-exp of the scores
      f32[lanes, queries, heads]; zeros and −inf in an idle lane.
    """
    lanes, queries = q.shape[:2]
    block_size = k_pool.shape[3]
    first, end = visible
    end = jnp.minimum(end, jnp.sum(table >= 0, axis=1, dtype=jnp.int32) * block_size)
    # What is read in one turn is not worth a second loop.
    shares = lanes > 1 and columns_of_a_turn(lanes, k_pool, table) < table.shape[1]
    split = split_columns(table, first, end, block_size, shares)
    bounds = tuple(jnp.repeat(bound[:, None], queries, axis=1) for bound in (first, end))

    def attend(table: Array, columns: Columns, rows: int) -> tuple[Array, Array]:
        """By each of so many rows, among which the lanes are divided."""
        out, lse = attend_columns(
            q.reshape(rows, -1, *q.shape[2:]),
            k_pool,
            v_pool,
            layer,
            table,
            columns,
            (bounds[0].reshape(rows, -1), bounds[1].reshape(rows, -1)),
            scale=scale,
            softcap=softcap,
        )
        return out.reshape(q.shape), lse.reshape(q.shape[:3])

    own = attend(table, split.own(), lanes)
    if not shares:
        return own
    any_lane = jnp.argmax(first < end)  # that is not idle
    shared = attend(table[any_lane][None], split.shared(), 1)
    return merge_partials(*own, *shared)


class _Split(NamedTuple):
    """Columns that some lane sees, i32[] each: begin <= shared_begin <= shared_end <= stop."""

    begin: Array
    shared_begin: Array
    shared_end: Array
    stop: Array

    def shared(self) -> Columns:
        """The columns that are the same for all lanes."""
        return Columns(self.shared_end - self.shared_begin, lambda place: self.shared_begin + place)

    def own(self) -> Columns:
        """All others, on both sides of those."""
        before = self.shared_begin - self.begin
        return Columns(
            before + self.stop - self.shared_end,
            lambda place: jnp.where(
                place < before, self.begin + place, self.shared_end + place - before
            ),
        )


def split_columns(table: Array, first: Array, end: Array, block_size: int, shares: bool) -> _Split:
    """Which columns are read once for all lanes, and which by each lane for itself.

    Args:
      table: i32[lanes, max_blocks], −1 for none.
      first, end: i32[lanes], the positions [first, end) that a lane sees, none if it is idle.
      block_size: positions of a column.
      shares: whether any are read for all lanes.
    """
    max_blocks = table.shape[1]
    sees = first < end
    begin = jnp.min(jnp.where(sees, first // block_size, max_blocks))
    stop = jnp.max(jnp.where(sees, -(-end // block_size), 0))
    begin = jnp.minimum(begin, stop)
    if not shares:
        return _Split(begin, begin, begin, stop)
    shared_begin = jnp.max(jnp.where(sees, -(-first // block_size), 0))
    whole = (jnp.arange(max_blocks) + 1) * block_size <= end[:, None]
    same = whole & (table == table[jnp.argmax(sees)])
    parts = ~jnp.all(same | ~sees[:, None], axis=0)
    shared_end = jnp.where(jnp.any(parts), jnp.argmax(parts), max_blocks)
    # With every lane idle all columns are alike.
    shared_end = jnp.clip(shared_end, shared_begin, jnp.maximum(stop, shared_begin))
    return _Split(begin, shared_begin, shared_end, stop)
