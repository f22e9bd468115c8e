"""The Triton paged prefill as a JAX function."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from dendrite_jax.kernels.batching import any_batched, batch, fold, fold_blocks, fold_pool, unfold
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
    _, queries, heads, head_dim = q.shape
    group = heads // k_pool.shape[2]
    tiles = tiles or prefill_tiles(queries * group, head_dim, k_pool.dtype.itemsize)

    @custom_vmap
    def attend(
        q: Array, k_pool: Array, v_pool: Array, table: Array, start: Array
    ) -> tuple[Array, Array]:
        return _launch(q, k_pool, v_pool, layer, table, start, scale, window, softcap, tiles)

    @attend.def_vmap
    def _mapped(
        size: int, batched: Any, q: Any, k_pool: Any, v_pool: Any, table: Any, start: Any
    ) -> Any:
        q, start = fold(q, batched[0], size), fold(start, batched[4], size)
        table = batch(table, batched[3], size)
        if any_batched(*batched[1:3]):
            k_pool, v_pool = batch(k_pool, batched[1], size), batch(v_pool, batched[2], size)
            table = fold_blocks(table, k_pool, k_pool.shape[1] * k_pool.shape[2])
            k_pool, v_pool = fold_pool(k_pool), fold_pool(v_pool)
        else:
            table = table.reshape(-1, table.shape[-1])
        out = paged_prefill(
            q,
            k_pool,
            v_pool,
            layer,
            table,
            start,
            scale=scale,
            window=window,
            softcap=softcap,
            tiles=tiles,
        )
        return tuple(unfold(part, size) for part in out), (True, True)

    return attend(q, k_pool, v_pool, table, start)


def _launch(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int,
    table: Array,
    start: Array,
    scale: float,
    window: int | None,
    softcap: float | None,
    tiles: PrefillTiles,
) -> tuple[Array, Array]:
    """The kernel over all rows."""
    rows, queries, heads, head_dim = q.shape
    _, num_blocks, kv_heads, block_size, _ = k_pool.shape
    group = heads // kv_heads
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
