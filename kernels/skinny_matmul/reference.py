"""Plain-XLA skinny product: norm, product and epilogue left to XLA's own fusion."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Root-mean-square norm over the last axis, computed in float32 (Zhang & Sennrich 2019)."""
    wide = x.astype(jnp.float32)
    scaled = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return scaled.astype(x.dtype) * weight


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
) -> Array:
    """Specification of `dendrite_jax.kernels.skinny_matmul.skinny_matmul`.

    Every step rounds to `out_dtype`, as separate layers would; `prefetch` is not needed.
    """
    if norm is not None:
        x = rms_norm(x, norm, eps)
    y = jnp.einsum("mk,nk->mn", x, weight, preferred_element_type=out_dtype)
    if bias is not None:
        y += bias.astype(out_dtype)
    if swiglu:
        gate, up = jnp.split(y, 2, axis=-1)
        y = jax.nn.silu(gate) * up
    return y


def residual_matmul(
    x: Array,
    residual: Array,
    weight: Array,
    *,
    next_norm: Array,
    eps: float,
    bias: Array | None,
    prefetch: Array | None = None,
) -> tuple[Array, Array]:
    """Specification of `dendrite_jax.kernels.skinny_matmul.residual_matmul`."""
    y = jnp.einsum("mk,nk->mn", x, weight, preferred_element_type=residual.dtype)
    if bias is not None:
        y += bias.astype(residual.dtype)
    y += residual
    return y, rms_norm(y, next_norm, eps)
