"""The Triton skinny product as a JAX function."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from dendrite_jax.kernels.batching import any_batched, fold, unfold
from dendrite_jax.kernels.dispatch import UnsupportedError
from dendrite_jax.kernels.launch import (
    DTYPES,
    array_type,
    launch,
    power_of_two,
    prefetch_groups,
)
from dendrite_jax.kernels.skinny_matmul import reference
from dendrite_jax.kernels.skinny_matmul import triton as kernels
from dendrite_jax.kernels.skinny_matmul.shapes import (
    MAX_ROWS,
    PREFETCH_BYTES,
    RowBlocks,
    TileBlocks,
    row_blocks,
    tile_blocks,
)


def skinny_matmul(
    x: Array,
    weight: Array,
    *,
    norm: Array | None,
    eps: float,
    bias: Array | None,
    swiglu: bool,
    residual: Array | None,
    out_dtype: jnp.dtype,
    prefetch: Array | None = None,
    blocks: RowBlocks | TileBlocks | None = None,
) -> Array:
    """`dendrite_jax.kernels.skinny_matmul.skinny_matmul` on Triton; `blocks` overrides tiles.

    Under `vmap` over rows the rows of all problems are multiplied at once, by XLA if they are more
    than MAX_ROWS, since the product is skinny no more; so is a product whose weights are mapped.
    """
    fixed: dict[str, Any] = {"eps": eps, "swiglu": swiglu, "out_dtype": out_dtype}

    @custom_vmap
    def product(x: Array, residual: Array | None, shared: dict[str, Any]) -> Array:
        return _launch(x, residual=residual, blocks=blocks, **shared, **fixed)

    @product.def_vmap
    def _mapped(size: int, batched: Any, x: Any, residual: Any, shared: Any) -> Any:
        if any_batched(*batched[2].values()):
            axes = jax.tree.map(lambda flag: 0 if flag else None, batched)
            return jax.vmap(
                lambda x, residual, shared: reference.skinny_matmul(
                    x, residual=residual, **shared, **fixed
                ),
                axes,
            )(x, residual, shared), True
        x = fold(x, batched[0], size)
        if residual is not None:
            residual = fold(residual, batched[1], size)
        compute = skinny_matmul if x.shape[0] <= MAX_ROWS else reference.skinny_matmul
        return unfold(compute(x, residual=residual, **shared, **fixed), size), True

    shared: dict[str, Any] = {"weight": weight, "norm": norm, "bias": bias, "prefetch": prefetch}
    return product(x, residual, shared)


def _launch(
    x: Array,
    weight: Array,
    *,
    norm: Array | None,
    eps: float,
    bias: Array | None,
    swiglu: bool,
    residual: Array | None,
    out_dtype: jnp.dtype,
    prefetch: Array | None,
    blocks: RowBlocks | TileBlocks | None,
) -> Array:
    """The kernel for the number of rows."""
    rows, depth = x.shape[0], weight.shape[1]
    outputs = weight.shape[0] // (2 if swiglu else 1)
    if rows > MAX_ROWS:
        raise UnsupportedError(f"x has {rows} rows; the kernel takes at most {MAX_ROWS}")
    if weight.dtype not in DTYPES:
        raise UnsupportedError(f"weight dtype {weight.dtype}: the kernel takes bf16, fp16, fp32")
    if rows == 1 and not isinstance(blocks, TileBlocks):
        blocks = blocks or row_blocks(depth)
        return launch(
            x,
            weight,
            norm,
            bias,
            residual,
            prefetch,
            kernel=kernels.row_kernel,
            grid=(-(-outputs // blocks.rows),),
            out_type=array_type((1, outputs), out_dtype),
            num_warps=blocks.warps,
            eps=eps,
            N=outputs,
            K=depth,
            SWIGLU=swiglu,
            ROWS=blocks.rows,
            CHUNK=blocks.chunk,
            UNROLL=blocks.unroll,
            AHEAD_GROUPS=prefetch_groups(prefetch, PREFETCH_BYTES),
        )
    if norm is not None:
        x = reference.rms_norm(x, norm, eps)
    if not isinstance(blocks, TileBlocks):
        blocks = tile_blocks(rows, outputs, depth, swiglu, weight.dtype.itemsize)
    return _tiled(x, weight, bias, residual, swiglu, out_dtype, blocks)


def _tiled(
    x: Array,
    weight: Array,
    bias: Array | None,
    residual: Array | None,
    swiglu: bool,
    out_dtype: jnp.dtype,
    blocks: TileBlocks,
) -> Array:
    """The tensor-core product of normalised rows; a split product is summed by XLA."""
    rows, depth = x.shape
    outputs = weight.shape[0] // (2 if swiglu else 1)
    if blocks.columns < 16 or depth % (blocks.splits * blocks.columns):
        raise UnsupportedError(
            f"depth {depth} is not a multiple of splits {blocks.splits} x columns "
            f"{blocks.columns}, at least 16"
        )
    split = blocks.splits > 1
    y = launch(
        x.astype(weight.dtype),
        weight,
        None if split else bias,
        None if split else residual,
        kernel=kernels.tile_kernel,
        grid=(1, -(-outputs // blocks.rows), blocks.splits),
        out_type=array_type((blocks.splits, rows, outputs), jnp.float32 if split else out_dtype),
        num_warps=blocks.warps,
        num_stages=blocks.stages,
        M=rows,
        N=outputs,
        K=depth,
        SWIGLU=swiglu,
        SPLITS=blocks.splits,
        BLOCK_M=max(16, power_of_two(rows)),
        BLOCK_N=blocks.rows,
        BLOCK_K=blocks.columns,
    )
    if not split:
        return y[0]
    y = jnp.sum(y, axis=0)
    if bias is not None:
        y += bias.astype(jnp.float32)
    if residual is not None:
        y += residual.astype(jnp.float32)
    return y.astype(out_dtype)
