"""The Triton skinny products as JAX functions."""

from __future__ import annotations

from collections.abc import Callable
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
    NORM_ELEMENTS,
    PREFETCH_BYTES,
    RowBlocks,
    TileBlocks,
    depth_shares,
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
    out_dtype: jnp.dtype,
    prefetch: Array | None = None,
    blocks: RowBlocks | TileBlocks | None = None,
) -> Array:
    """`dendrite_jax.kernels.skinny_matmul.skinny_matmul` on Triton; `blocks` overrides tiles."""
    fixed: dict[str, Any] = {"eps": eps, "swiglu": swiglu, "out_dtype": out_dtype}

    def compute(x: Array, weight: Array, norm: Array | None, **shared: Any) -> Array:
        if x.shape[0] > MAX_ROWS:
            return reference.skinny_matmul(x, weight, norm=norm, **shared, **fixed)
        if x.shape[0] == 1 and not isinstance(blocks, TileBlocks):
            return _one_row(x, weight, norm=norm, residual=None, blocks=blocks, **shared, **fixed)
        if norm is not None:
            x = reference.rms_norm(x, norm, eps)
        return _several_rows(x, weight, shared["bias"], swiglu, out_dtype, blocks)

    def plain(x: Array, **shared: Any) -> Array:
        return reference.skinny_matmul(x, **shared, **fixed)

    shared = {"weight": weight, "norm": norm, "bias": bias, "prefetch": prefetch}
    return _over_rows(compute, plain)((x,), shared)


def residual_matmul(
    x: Array,
    residual: Array,
    weight: Array,
    *,
    next_norm: Array,
    eps: float,
    bias: Array | None,
    prefetch: Array | None = None,
    blocks: RowBlocks | TileBlocks | None = None,
) -> tuple[Array, Array | None]:
    """`dendrite_jax.kernels.skinny_matmul.residual_matmul` on Triton; `blocks` overrides tiles."""
    keeps_norm = x.shape[0] > 1  # of each problem of a vmap, so that its results stay as they are

    def compute(
        x: Array,
        residual: Array,
        weight: Array,
        next_norm: Array,
        bias: Array | None,
        prefetch: Array | None,
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
        y, normed = reference.residual_matmul(x, residual, eps=eps, **shared)
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
        if any_batched(*batched[1].values()):
            axes = jax.tree.map(lambda flag: 0 if flag else None, batched)
            out = jax.vmap(lambda rows, shared: plain(*rows, **shared), axes)(rows, shared)
        else:
            rows = tuple(fold(*row, size) for row in zip(rows, batched[0], strict=True))
            out = jax.tree.map(lambda y: unfold(y, size), product(rows, shared))
        return out, jax.tree.map(lambda _: True, out)

    return product


def _check_dtype(weight: Array) -> None:
    """Raises UnsupportedError for weights that no kernel reads."""
    if weight.dtype not in DTYPES:
        raise UnsupportedError(f"weight dtype {weight.dtype}: the kernel takes bf16, fp16, fp32")


def _one_row(
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
    blocks: RowBlocks | None,
) -> Array:
    """The product of one row, with everything around it fused."""
    _check_dtype(weight)
    depth = weight.shape[1]
    outputs = weight.shape[0] // (2 if swiglu else 1)
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


def _several_rows(
    x: Array,
    weight: Array,
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


def _many_rows(x: Array, weight: Array, out_dtype: jnp.dtype) -> Array:
    """XLA's product [shares, rows, outputs]; the sum is over shares of the depth, float32 if any.

    XLA itself would split the depth likewise, and add the shares up in a kernel of its own.
    """
    (rows, depth), outputs = x.shape, weight.shape[0]
    shares = depth_shares(rows, outputs, depth)
    if shares == 1:
        return jnp.einsum("mk,nk->mn", x, weight, preferred_element_type=out_dtype)[None]
    x, weight = (part.reshape(-1, shares, depth // shares) for part in (x, weight))
    return jnp.einsum("msk,nsk->smn", x, weight, preferred_element_type=jnp.float32)


def _tiled(
    x: Array,
    weight: Array,
    bias: Array | None,
    swiglu: bool,
    out_dtype: jnp.dtype,
    blocks: RowBlocks | TileBlocks | None,
) -> Array:
    """The tensor-core product of some rows [splits, rows, outputs]; the sum is over `splits`.

    Several splits are float32, and the bias is not in them.
    """
    _check_dtype(weight)
    rows, depth = x.shape
    outputs = weight.shape[0] // (2 if swiglu else 1)
    if not isinstance(blocks, TileBlocks):
        blocks = tile_blocks(rows, outputs, depth, swiglu, weight.dtype.itemsize)
    if blocks.columns < 16 or depth % (blocks.splits * blocks.columns):
        raise UnsupportedError(
            f"depth {depth} is not a multiple of splits {blocks.splits} x columns "
            f"{blocks.columns}, at least 16"
        )
    split = blocks.splits > 1
    return launch(
        x.astype(weight.dtype),
        weight,
        None if split else bias,
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
