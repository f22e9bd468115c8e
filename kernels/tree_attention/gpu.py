"""The Triton tree attention as a JAX function."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from dendrite_jax.kernels.batching import (
    any_batched,
    fold,
    fold_cache,
    refuse_batched,
    traced_layer,
    unfold,
)
from dendrite_jax.kernels.dispatch import UnsupportedError
from dendrite_jax.kernels.launch import (
    array_type,
    check_pool,
    in_order,
    launch,
    layer_operand,
    power_of_two,
)
from dendrite_jax.kernels.tree_attention import triton as kernels
from dendrite_jax.kernels.tree_attention.entries import MAX_COLUMNS
from dendrite_jax.kernels.tree_attention.plan import Plan, build_plan, tile_counts
from dendrite_jax.kernels.tree_attention.shapes import TreeTiles, tree_tiles
from dendrite_jax.kernels.tree_attention.triton_merge import merge_kernel


def tiles_for(num_heads: int, k_pool: Array, lanes: int) -> TreeTiles:
    """Tile sizes for a pool and a number of lanes, after refusing what the kernels lack.

    Raises:
      UnsupportedError: names the dimension that the kernels were not written for.
    """
    check_pool(num_heads, k_pool)
    _, _, num_kv_heads, _, head_dim = k_pool.shape
    return tree_tiles(lanes, num_heads, num_kv_heads, head_dim, k_pool.dtype.itemsize)


def make_plan(
    table: Array,
    length: Array,
    k_pool: Array,
    num_heads: int,
    window: int | None,
    num_blocks: int | None = None,
) -> Plan:
    """A plan for a pool; `num_blocks` is how many blocks a table can name, of one layer if None.

    Raises:
      UnsupportedError: names the dimension that the kernels were not written for.
    """
    if table.shape[1] > MAX_COLUMNS:
        raise UnsupportedError(
            f"a table of {table.shape[1]} blocks a lane: the kernel takes at most {MAX_COLUMNS}"
        )
    return build_plan(
        table,
        length,
        num_blocks=num_blocks or k_pool.shape[1],
        num_kv_heads=k_pool.shape[2],
        group=num_heads // k_pool.shape[2],
        window=window,
        tiles=tiles_for(num_heads, k_pool, table.shape[0]),
    )


def tree_attention(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    length: Array,
    plan: Plan,
    *,
    scale: float,
    softcap: float | None,
    num_blocks: int | None = None,
) -> tuple[Array, Array]:
    """`dendrite_jax.kernels.tree_attention.tree_attention` on Triton, with its plan made.

    Under `vmap` the lanes of all problems are planned anew, as the lanes of one launch.
    """
    named_blocks = num_blocks or k_pool.shape[1]

    @custom_vmap
    def attend(
        q: Array,
        k_pool: Array,
        v_pool: Array,
        table: Array,
        length: Array,
        plan: Plan,
        *traced: Array,
    ) -> tuple[Array, Array]:
        number = traced[0] if traced else layer
        return _launch(q, k_pool, v_pool, number, length, plan, scale, softcap)

    @attend.def_vmap
    def _mapped(size: int, batched: Any, q: Any, k_pool: Any, v_pool: Any, *rest: Any) -> Any:
        table, length, plan, *traced = rest
        refuse_batched("layer", batched[6:])
        blocks = named_blocks * (size if any_batched(*batched[1:3]) else 1)
        k_pool, v_pool, table = fold_cache(k_pool, v_pool, table, batched[1:4], size)
        q, length = fold(q, batched[0], size), fold(length, batched[4], size)
        plan = make_plan(table, length, k_pool, q.shape[1], plan.window, blocks)
        out = tree_attention(
            q,
            k_pool,
            v_pool,
            traced[0] if traced else layer,
            table,
            length,
            plan,
            scale=scale,
            softcap=softcap,
            num_blocks=blocks,
        )
        return tuple(unfold(part, size) for part in out), (True, True)

    return attend(q, k_pool, v_pool, table, length, plan, *traced_layer(layer))


def _launch(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    length: Array,
    plan: Plan,
    scale: float,
    softcap: float | None,
) -> tuple[Array, Array]:
    """Both kernels, one after the other."""
    lanes, num_heads, head_dim = q.shape
    _, num_blocks, num_kv_heads, _, _ = k_pool.shape
    layer_block, layer_traced = layer_operand(layer, num_blocks)
    tiles = plan.tiles
    workers = plan.work_tile.shape[0]
    wide_tiles, narrow_tiles = tile_counts(lanes, plan.group, tiles)
    wide_lanes, narrow_lanes = tiles.lanes(plan.group)
    narrow_base = (workers + wide_tiles) * num_kv_heads * tiles.wide_rows
    rows = narrow_base + (workers + narrow_tiles) * num_kv_heads * tiles.narrow_rows
    cut: dict[str, Any] = {
        "KV_HEADS": num_kv_heads,
        "G": plan.group,
        "D": head_dim,
        "DIM": power_of_two(head_dim),
        "WIDE": wide_tiles > 0,
        "WIDE_LANES": wide_lanes,
        "WIDE_ROWS": tiles.wide_rows,
        "NARROW_LANES": narrow_lanes,
        "NARROW_ROWS": tiles.narrow_rows,
    }
    partial_out, partial_lse = launch(
        *in_order(
            kernels.partial_kernel,
            q=q.astype(k_pool.dtype),
            k_pool=k_pool,
            v_pool=v_pool,
            order=plan.order,
            lengths=length[plan.order],
            entry_block=plan.entry_block,
            entry_info=plan.entry_info,
            work_start=plan.work_start,
            work_tile=plan.work_tile,
            work_stop=plan.work_stop,
            tile_start=plan.tile_start,
            tile_full=plan.tile_full,
            period=plan.period,
            lanes=lanes,
            wide_tiles=wide_tiles,
            narrow_base=narrow_base,
            layer_block=layer_block,
        ),
        kernel=kernels.partial_kernel,
        grid=(workers * num_kv_heads,),
        out_type=(
            array_type((rows, head_dim), jnp.float32),
            array_type((rows,), jnp.float32),
        ),
        num_warps=tiles.warps,
        num_stages=tiles.stages,
        scale=scale,
        softcap=softcap or 0.0,
        window=plan.window or 0,
        PRECISION="ieee",
        LAYER_TRACED=layer_traced,
        WIDE_KEYS=tiles.wide_keys,
        NARROW_KEYS=tiles.narrow_keys,
        START_BLOCKS=tiles.wide_tile_cost // tiles.wide_cost,
        **cut,
    )
    return launch(
        *in_order(
            merge_kernel,
            partial_out=partial_out,
            partial_lse=partial_lse,
            order=plan.order,
            tile_worker=plan.tile_worker,
            tile_pieces=plan.tile_pieces,
            lanes=lanes,
            wide_tiles=wide_tiles,
            narrow_base=narrow_base,
        ),
        kernel=merge_kernel,
        grid=(narrow_tiles * tiles.narrow_rows // tiles.merge_rows, num_kv_heads),
        out_type=(
            array_type(q.shape, q.dtype),
            array_type((lanes, num_heads), jnp.float32),
        ),
        num_warps=1,
        ROWS=tiles.merge_rows,
        PIECES=tiles.merge_pieces,
        **cut,
    )
