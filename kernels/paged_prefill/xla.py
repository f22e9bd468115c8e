"""Plain-XLA paged prefill that reads no more columns of the tables than are filled."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.chunks import Columns, attend_columns


def paged_prefill(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    start: Array,
    length: Array | None = None,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Array, Array]:
    """`dendrite_jax.kernels.paged_prefill.paged_prefill` in plain XLA."""
    block_size = k_pool.shape[3]
    held = jnp.sum(table >= 0, axis=1, dtype=jnp.int32) * block_size
    held = held if length is None else jnp.minimum(held, length)
    position = start[:, None] + jnp.arange(q.shape[1])  # [rows, queries]
    end = jnp.minimum(position + 1, held[:, None])
    first = jnp.zeros_like(end) if window is None else jnp.maximum(position + 1 - window, 0)
    sees = first < end
    begin = jnp.min(jnp.where(sees, first, jnp.iinfo(jnp.int32).max)) // block_size
    stop = -(-jnp.max(jnp.where(sees, end, 0)) // block_size)
    columns = Columns(jnp.maximum(stop - begin, 0), lambda place: begin + place)
    out, lse = attend_columns(
        q, k_pool, v_pool, layer, table, columns, (first, end), scale=scale, softcap=softcap
    )
    return out.astype(q.dtype), lse
