"""Plain-XLA verify attention that reads no more of the cached prefixes than there is."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.merge import merge_partials
from dendrite_jax.kernels.tree_attention.xla import attend_prefixes
from dendrite_jax.kernels.verify_attention.reference import masked_attention


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
    """`dendrite_jax.kernels.verify_attention.verify_attention` in plain XLA."""
    cached = jnp.zeros_like(length), length
    prefix = attend_prefixes(q, k_pool, v_pool, layer, table, cached, scale=scale, softcap=softcap)
    keys, values = k.astype(k_pool.dtype), v.astype(v_pool.dtype)
    draft, draft_lse = masked_attention(q, keys, values, seen, scale, softcap)
    out, lse = merge_partials(*prefix, draft.astype(jnp.float32), draft_lse)
    return out.astype(q.dtype), lse
