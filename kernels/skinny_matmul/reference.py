"""Plain-XLA skinny product: norm, product and epilogue left to XLA's own fusion."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


def skinny_matmul(
    x: Array,
    weight: Array,
    *,
    norm: Array | None,
    eps: float,
    bias: Array | None,
    swiglu: bool,
    residual: Array | None,
    out_dtype: DTypeLike,
) -> Array:
    """Specification of `dendrite_jax.kernels.skinny_matmul.skinny_matmul`."""
    if norm is not None:
        wide = x.astype(jnp.float32)
        wide *= jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
        x = (wide * norm.astype(jnp.float32)).astype(x.dtype)
    y = jnp.einsum("mk,nk->mn", x, weight, preferred_element_type=jnp.float32)
    if bias is not None:
        y += bias.astype(jnp.float32)
    if swiglu:
        gate, up = jnp.split(y, 2, axis=-1)
        y = jax.nn.silu(gate) * up
    if residual is not None:
        y += residual.astype(jnp.float32)
    return y.astype(out_dtype)
