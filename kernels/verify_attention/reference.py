"""Plain-XLA verify attention: one softmax over the gathered prefix and the draft."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def verify_attention(
    q: Array,
    k: Array,
    v: Array,
    seen: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    length: Array,
    *,
    scale: float,
    softcap: float | None = None,
) -> tuple[Array, Array]:
    """Specification of `dendrite_jax.kernels.verify_attention.verify_attention`."""
    branches, nodes, _, _ = q.shape
    block = jnp.maximum(table, 0)

    def joined(pool: Array, draft: Array) -> Array:
        """[branches, prefix + nodes, kv_heads, head_dim]"""
        prefix = jnp.moveaxis(pool[layer, block], 2, 3)
        return jnp.concatenate([prefix.reshape(branches, -1, *draft.shape[2:]), draft], axis=1)

    keys, values = joined(k_pool, k.astype(k_pool.dtype)), joined(v_pool, v.astype(v_pool.dtype))
    cached = jnp.arange(keys.shape[1] - nodes) < length[:, None]
    cached = jnp.broadcast_to(cached[:, None], (branches, nodes, cached.shape[1]))
    return masked_attention(
        q, keys, values, jnp.concatenate([cached, seen], axis=2), scale, softcap
    )


def masked_attention(
    q: Array, keys: Array, values: Array, seen: Array, scale: float, softcap: float | None
) -> tuple[Array, Array]:
    """Dense attention under a mask, sums in float32.

    Args:
      q: [branches, nodes, heads, head_dim].
      keys, values: [branches, n, kv_heads, head_dim].
      seen: bool[branches, nodes, n].
      scale, softcap: as in `verify_attention`.

    Returns:
      The output in q's dtype, and the log-sum-exp f32[branches, nodes, heads].
    """
    branches, nodes, heads, head_dim = q.shape
    grouped = q.reshape(branches, nodes, keys.shape[2], -1, head_dim)
    scores = scale * jnp.einsum(
        "bikgd,bjkd->bikgj", grouped, keys, preferred_element_type=jnp.float32
    )
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    values = jnp.where(jnp.any(seen, axis=1)[..., None, None], values, 0)  # 0 times NaN is NaN
    seen = seen[:, :, None, None]
    scores = jnp.where(seen, scores, -jnp.inf)
    peak = jnp.max(scores, axis=-1, keepdims=True)
    peak = jnp.where(jnp.isfinite(peak), peak, 0.0)
    weights = jnp.where(seen, jnp.exp(scores - peak), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = (weights / jnp.where(total > 0, total, 1.0)).astype(values.dtype)
    out = jnp.einsum("bikgj,bjkd->bikgd", weights, values, preferred_element_type=jnp.float32)
    lse = (peak + jnp.log(total)).reshape(branches, nodes, heads)
    return out.reshape(q.shape).astype(q.dtype), lse
