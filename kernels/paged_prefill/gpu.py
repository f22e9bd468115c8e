"""The Triton paged prefill as a JAX function."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.launch import array_type, check_pool, launch
from dendrite_jax.kernels.paged_prefill import triton as kernels
from dendrite_jax.kernels.paged_prefill.shapes import PrefillTiles, prefill_tiles


def paged_prefill(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int,
    table: Array,
    start: Array,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    tiles: PrefillTiles | None = None,
) -> tuple[Array, Array]:
    """`dendrite_jax.kernels.paged_prefill.paged_prefill` on Triton; `tiles` overrides tile sizes.

    Raises:
      UnsupportedError: names the dimension that the kernel was not written for.
    """
    check_pool(q.shape[2], k_pool)
    rows, queries, heads, head_dim = q.shape
    _, num_blocks, kv_heads, block_size, _ = k_pool.shape
    group = heads // kv_heads
    tiles = tiles or prefill_tiles(queries * group, head_dim, k_pool.dtype.itemsize)
    return launch(
        q.astype(k_pool.dtype),
        k_pool,
        v_pool,
        table,
        start,
        jnp.sum(table >= 0, axis=1, dtype=jnp.int32) * block_size,
        layer * num_blocks,
        queries,
        table.shape[1],
        kernel=kernels.prefill_kernel,
        grid=(-(-queries * group // tiles.rows), kv_heads, rows),
        out_type=(
            array_type(q.shape, q.dtype),
            array_type((rows, queries, heads), jnp.float32),
        ),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        scale=scale,
        softcap=softcap or 0.0,
        window=window or 0,
        KV_HEADS=kv_heads,
        G=group,
        D=head_dim,
        DIM=1 << (head_dim - 1).bit_length(),
        PRECISION="ieee",
        ROWS=tiles.rows,
        KEYS=tiles.keys,
    )
