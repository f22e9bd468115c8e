"""Verify attention on a GPU: tree attention of the prefix, the draft by XLA, merged."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.merge import merge_partials
from dendrite_jax.kernels.tree_attention import gpu as tree
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
    """`dendrite_jax.kernels.verify_attention.verify_attention` on Triton.

    To tree attention every draft node is a lane with its branch's table, so that nodes share the
    prefix as branches do; layers share the plan, which XLA finds to be the same. The draft's own
    scores are at most 64 x 64 a head, too few for a kernel of their own.
    """
    branches, nodes, heads, head_dim = q.shape
    lanes = jnp.repeat(table, nodes, axis=0), jnp.repeat(length, nodes)
    plan = tree.make_plan(*lanes, k_pool, heads, None)
    prefix, prefix_lse = tree.tree_attention(
        q.reshape(branches * nodes, heads, head_dim),
        k_pool,
        v_pool,
        layer,
        *lanes,
        plan,
        scale=scale,
        softcap=softcap,
    )
    keys, values = k.astype(k_pool.dtype), v.astype(v_pool.dtype)
    draft, draft_lse = masked_attention(q.astype(k_pool.dtype), keys, values, seen, scale, softcap)
    return merge_partials(
        prefix.reshape(q.shape),
        prefix_lse.reshape(q.shape[:3]),
        draft.astype(q.dtype),
        draft_lse,
    )
