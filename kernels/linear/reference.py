"""Plain-XLA product with a weight of any format, its neighbours left to XLA's own fusion."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.linear.formats import Weight


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Root-mean-square norm over the last axis, computed in float32 (Zhang & Sennrich 2019).

    Has x's dtype, whatever the weight's.
    """
    wide = x.astype(jnp.float32)
    scaled = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return scaled.astype(x.dtype) * weight.astype(x.dtype)


def product(x: Array, weight: Weight, out_dtype: jnp.dtype) -> Array:
    """x [rows, depth] times the weight, dequantised to x's dtype: [rows, outputs]."""
    dense = weight.dequantize(x.dtype)
    return jnp.einsum("mk,nk->mn", x, dense, preferred_element_type=out_dtype)


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
) -> Array:
    """Specification of `dendrite_jax.kernels.linear.linear`.

    Every step rounds to `out_dtype`, as separate layers would; `prefetch` is not needed.
    """
    if norm is not None:
        x = rms_norm(x, norm, eps)
    y = product(x, weight, out_dtype)
    if bias is not None:
        y += bias.astype(out_dtype)
    if swiglu:
        gate, up = jnp.split(y, 2, axis=-1)
        y = jax.nn.silu(gate) * up
    return y


def residual_linear(
    x: Array,
    residual: Array,
    weight: Weight,
    *,
    next_norm: Array,
    eps: float,
    bias: Array | None,
    prefetch: Weight | None = None,
) -> tuple[Array, Array]:
    """Specification of `dendrite_jax.kernels.linear.residual_linear`."""
    y = product(x, weight, residual.dtype)
    if bias is not None:
        y += bias.astype(residual.dtype)
    y += residual
    return y, rms_norm(y, next_norm, eps)
