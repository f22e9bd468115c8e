"""The Triton paged prefill as a JAX function."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from dendrite_jax.kernels.batching import fold, fold_cache, refuse_batched, traced_layer, unfold
from dendrite_jax.kernels.launch import (
    array_type,
    check_pool,
    in_order,
    launch,
    layer_operand,
    power_of_two,
)
from dendrite_jax.kernels.paged_prefill import triton as kernels
from dendrite_jax.kernels.paged_prefill.shapes import PrefillTiles, prefill_tiles


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
    held = jnp.sum(table >= 0, axis=1, dtype=jnp.int32) * k_pool.shape[3]
    held = held if length is None else jnp.minimum(held, length)

    @custom_vmap
    def attend(
        q: Array,
        k_pool: Array,
        v_pool: Array,
        table: Array,
        start: Array,
        held: Array,
        *traced: Array,
    ) -> tuple[Array, Array]:
        number = traced[0] if traced else layer
        return _launch(q, k_pool, v_pool, number, table, start, held, scale, window, softcap, tiles)

    @attend.def_vmap
    def _mapped(
        size: int, batched: Any, q: Any, k_pool: Any, v_pool: Any, table: Any, *rest: Any
    ) -> Any:
        start, held, *traced = rest
        refuse_batched("layer", batched[6:])
        q, start = fold(q, batched[0], size), fold(start, batched[4], size)
        held = fold(held, batched[5], size)
        k_pool, v_pool, table = fold_cache(k_pool, v_pool, table, batched[1:4], size)
        out = paged_prefill(
            q,
            k_pool,
            v_pool,
            traced[0] if traced else layer,
            table,
            start,
            held,
            scale=scale,
            window=window,
            softcap=softcap,
            tiles=tiles,
        )
        return tuple(unfold(part, size) for part in out), (True, True)

    return attend(q, k_pool, v_pool, table, start, held, *traced_layer(layer))


def _launch(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    start: Array,
    held: Array,
    scale: float,
    window: int | None,
    softcap: float | None,
    tiles: PrefillTiles,
) -> tuple[Array, Array]:
    """The kernel over all rows."""
    rows, queries, heads, head_dim = q.shape
    _, num_blocks, kv_heads, _, _ = k_pool.shape
    group = heads // kv_heads
    layer_block, layer_traced = layer_operand(layer, num_blocks)
    return launch(
        *in_order(
            kernels.prefill_kernel,
            q=q.astype(k_pool.dtype),
            k_pool=k_pool,
            v_pool=v_pool,
            table=table,
            start=start,
            held=held,
            layer_block=layer_block,
            num_queries=queries,
            max_blocks=table.shape[1],
        ),
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
        DIM=power_of_two(head_dim),
        PRECISION="ieee",
        LAYER_TRACED=layer_traced,
        ROWS=tiles.rows,
        KEYS=tiles.keys,
    )
