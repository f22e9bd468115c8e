"""The Triton products as JAX functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

from dendrite_jax.kernels.batching import any_batched, fold, unfold
from dendrite_jax.kernels.dispatch import UnsupportedError
from dendrite_jax.kernels.launch import array_type, launch, power_of_two, prefetch_groups
from dendrite_jax.kernels.linear import reference
from dendrite_jax.kernels.linear import triton as kernels
from dendrite_jax.kernels.linear.formats import Weight
from dendrite_jax.kernels.linear.loads import tile_of
from dendrite_jax.kernels.linear.shapes import (
    MAX_ROWS,
    NORM_ELEMENTS,
    PREFETCH_BYTES,
    RowBlocks,
    TileBlocks,
    depth_shares,
    row_blocks,
    tile_blocks,
)


def linear(
    x: Array,
    weight: Weight,
    *,
    norm: Array | None,
    eps: float,
    bias: Array | None,
    swiglu: bool,
    out_dtype: jnp.dtype,
    prefetch: Weight | None = None,
    blocks: RowBlocks | TileBlocks | None = None,
) -> Array:
    """`dendrite_jax.kernels.linear.linear` on Triton; `blocks` overrides tiles."""
    fixed: dict[str, Any] = {"eps": eps, "swiglu": swiglu, "out_dtype": out_dtype}

    def compute(x: Array, weight: Weight, norm: Array | None, **shared: Any) -> Array:
        if x.shape[0] > MAX_ROWS:
            return reference.linear(x, weight, norm=norm, **shared, **fixed)
        if x.shape[0] == 1 and not isinstance(blocks, TileBlocks):
            return _one_row(x, weight, norm=norm, residual=None, blocks=blocks, **shared, **fixed)
        if norm is not None:
            x = reference.rms_norm(x, norm, eps)
        return _several_rows(x, weight, shared["bias"], swiglu, out_dtype, blocks)

    def plain(x: Array, **shared: Any) -> Array:
        return reference.linear(x, **shared, **fixed)

    shared = {"weight": weight, "norm": norm, "bias": bias, "prefetch": prefetch}
    return _over_rows(compute, plain)((x,), shared)


def residual_linear(
    x: Array,
    residual: Array,
    weight: Weight,
    *,
    next_norm: Array,
    eps: float,
    bias: Array | None,
    prefetch: Weight | None = None,
    blocks: RowBlocks | TileBlocks | None = None,
) -> tuple[Array, Array | None]:
    """`dendrite_jax.kernels.linear.residual_linear` on Triton; `blocks` overrides tiles."""
    keeps_norm = x.shape[0] > 1  # of each problem of a vmap, so that its results stay as they are

    def compute(
        x: Array,
        residual: Array,
        weight: Weight,
        next_norm: Array,
        bias: Array | None,
        prefetch: Weight | None,
    ) -> tuple[Array, Array | None]:
        if x.shape[0] == 1 and not isinstance(blocks, TileBlocks):
            y = _one_row(
                x,
                weight,
                norm=None,
                eps=eps,
                bias=bias,
                swiglu=False,
                residual=residual,
                out_dtype=residual.dtype,
                prefetch=prefetch,
                blocks=blocks,
            )
            return y, None
        if x.shape[0] > MAX_ROWS:
            parts = _many_rows(x, weight, residual.dtype)
        else:
            parts = _tiled(x, weight, None, False, jnp.dtype("float32"), blocks)
        y, normed = _add_norm(parts, bias, residual, next_norm, eps)
        return y, normed if keeps_norm else None

    def plain(x: Array, residual: Array, **shared: Any) -> tuple[Array, Array | None]:
        y, normed = reference.residual_linear(x, residual, eps=eps, **shared)
        return y, normed if keeps_norm else None

    shared = {"weight": weight, "next_norm": next_norm, "bias": bias, "prefetch": prefetch}
    return _over_rows(compute, plain)((x, residual), shared)


def _over_rows(compute: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """`compute(*rows, **shared)` as a function of both, with a rule for `vmap`.

    The rows of all problems are computed at once. Where what they share is mapped, `plain` is.
    """

    @custom_vmap
    def product(rows: tuple[Array, ...], shared: dict[str, Any]) -> Any:
        return compute(*rows, **shared)

    @product.def_vmap
    def _mapped(size: int, batched: Any, rows: Any, shared: Any) -> Any:
        if any_batched(*jax.tree.leaves(batched[1])):
            axes = jax.tree.map(lambda flag: 0 if flag else None, batched)
            out = jax.vmap(lambda rows, shared: plain(*rows, **shared), axes)(rows, shared)
        else:
            rows = tuple(fold(*row, size) for row in zip(rows, batched[0], strict=True))
            out = jax.tree.map(lambda y: unfold(y, size), product(rows, shared))
        return out, jax.tree.map(lambda _: True, out)

    return product


def _one_row(
    x: Array,
    weight: Weight,
    *,
    norm: Array | None,
    eps: float,
    bias: Array | None,
    swiglu: bool,
    residual: Array | None,
    out_dtype: jnp.dtype,
    prefetch: Weight | None,
    blocks: RowBlocks | None,
) -> Array:
    """The product of one row, with everything around it fused."""
    depth = weight.shape[1]
    outputs = weight.shape[0] // (2 if swiglu else 1)
    blocks = blocks or row_blocks(depth)
    ahead = None if prefetch is None else prefetch.values
    return launch(
        x,
        weight.values,
        norm,
        bias,
        residual,
        ahead,
        kernel=kernels.row_kernel,
        grid=(-(-outputs // blocks.rows),),
        out_type=array_type((1, outputs), out_dtype),
        num_warps=blocks.warps,
        eps=eps,
        N=outputs,
        K=depth,
        TILE=tile_of(weight),
        SWIGLU=swiglu,
        ROWS=blocks.rows,
        CHUNK=blocks.chunk,
        UNROLL=blocks.unroll,
        AHEAD_GROUPS=prefetch_groups(ahead, PREFETCH_BYTES),
    )


def _several_rows(
    x: Array,
    weight: Weight,
    bias: Array | None,
    swiglu: bool,
    out_dtype: jnp.dtype,
    blocks: RowBlocks | TileBlocks | None,
) -> Array:
    """The product of normalised rows; XLA adds up the shares of a split one."""
    parts = _tiled(x, weight, bias, swiglu, out_dtype, blocks)
    if parts.shape[0] == 1:
        return parts[0]
    y = jnp.sum(parts, axis=0)
    if bias is not None:
        y += bias.astype(jnp.float32)
    return y.astype(out_dtype)


def _many_rows(x: Array, weight: Weight, out_dtype: jnp.dtype) -> Array:
    """XLA's product [shares, rows, outputs]; the sum is over shares of the depth, float32 if any.

    XLA itself would split the depth likewise, and add the shares up in a kernel of its own.
    """
    (rows, depth), outputs = x.shape, weight.shape[0]
    shares = depth_shares(rows, outputs, depth)
    if shares == 1:
        return reference.product(x, weight, out_dtype)[None]
    x, dense = (
        part.reshape(-1, shares, depth // shares) for part in (x, weight.dequantize(x.dtype))
    )
    return jnp.einsum("msk,nsk->smn", x, dense, preferred_element_type=jnp.float32)


def _tiled(
    x: Array,
    weight: Weight,
    bias: Array | None,
    swiglu: bool,
    out_dtype: jnp.dtype,
    blocks: RowBlocks | TileBlocks | None,
) -> Array:
    """The tensor-core product of some rows [splits, rows, outputs]; the sum is over `splits`.

    Several splits are float32, and the bias is not in them.
    """
    rows, depth = x.shape
    outputs = weight.shape[0] // (2 if swiglu else 1)
    if not isinstance(blocks, TileBlocks):
        itemsize = max(x.dtype.itemsize, weight.dtype.itemsize)
        blocks = tile_blocks(rows, outputs, depth, swiglu, itemsize)
    if blocks.columns < 16 or depth % (blocks.splits * blocks.columns):
        raise UnsupportedError(
            f"depth {depth} is not a multiple of splits {blocks.splits} x columns "
            f"{blocks.columns}, at least 16"
        )
    split = blocks.splits > 1
    return launch(
        x,
        weight.values,
        None if split else bias,
        kernel=kernels.tile_kernel,
        grid=(1, -(-outputs // blocks.rows), blocks.splits),
        out_type=array_type((blocks.splits, rows, outputs), jnp.float32 if split else out_dtype),
        num_warps=blocks.warps,
        num_stages=blocks.stages,
        M=rows,
        N=outputs,
        K=depth,
        TILE=tile_of(weight),
        SWIGLU=swiglu,
        SPLITS=blocks.splits,
        BLOCK_M=max(16, power_of_two(rows)),
        BLOCK_N=blocks.rows,
        BLOCK_K=blocks.columns,
    )


def _add_norm(
    parts: Array, bias: Array | None, residual: Array, norm: Array, eps: float
) -> tuple[Array, Array]:
    """The sum of `parts` [splits, rows, outputs], bias and residual, and its RMS norm."""
    splits, rows, outputs = parts.shape
    block = power_of_two(outputs)
    y_type = array_type((rows, outputs), residual.dtype)
    return launch(
        parts,
        bias,
        residual,
        norm,
        kernel=kernels.add_norm_kernel,
        grid=(rows,),
        out_type=(y_type, y_type),
        num_warps=min(16, max(1, block // NORM_ELEMENTS)),
        eps=eps,
        M=rows,
        N=outputs,
        SPLITS=splits,
        BLOCK=block,
    )
