"""Plain-XLA rotary embedding with append."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.append_kv import append_kv
from dendrite_jax.kernels.linear import rms_norm


def rope_append(
    qkv: Array,
    rope: tuple[Array, Array],
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    block: Array,
    offset: Array,
    *,
    q_norm: Array | None,
    k_norm: Array | None,
    eps: float,
) -> tuple[Array, Array, Array]:
    """Specification of `dendrite_jax.kernels.rope_append.rope_append`."""
    _, _, kv_heads, _, head_dim = k_pool.shape
    qkv = qkv.reshape(*qkv.shape[:2], -1, head_dim)
    heads = qkv.shape[2] - 2 * kv_heads
    q, k, v = jnp.split(qkv, [heads, heads + kv_heads], axis=2)
    if q_norm is not None and k_norm is not None:
        q, k = rms_norm(q, q_norm, eps), rms_norm(k, k_norm, eps)
    pools = append_kv(k_pool, v_pool, layer, _rotate(k, *rope), v, block, offset)
    return _rotate(q, *rope), *pools


def _rotate(x: Array, cos: Array, sin: Array) -> Array:
    """Rotates [..., heads, head_dim] by tables [..., head_dim / 2], in float32."""
    cos, sin = cos[..., None, :], sin[..., None, :]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)
