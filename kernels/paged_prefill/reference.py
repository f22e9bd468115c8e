"""Plain-XLA paged attention: gather every block of a row's table, mask, softmax.

It reads each block once per row that names it, which is what the GPU kernels avoid, and it is the
specification that they are tested against.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def paged_prefill(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    start: Array,
    length: Array | None = None,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Array, Array]:
    """Specification of `dendrite_jax.kernels.paged_prefill.paged_prefill`."""
    rows, queries, num_heads, head_dim = q.shape
    _, _, num_kv_heads, block_size, _ = k_pool.shape
    max_blocks = table.shape[1]
    group = num_heads // num_kv_heads

    block = jnp.maximum(table, 0)
    keys = k_pool[layer, block]  # [rows, max_blocks, kv_heads, block_size, head_dim]
    values = v_pool[layer, block]
    q = q.reshape(rows, queries, num_kv_heads, group, head_dim)
    scores = scale * jnp.einsum("rqkgd,rmkbd->rkgqmb", q, keys, preferred_element_type=jnp.float32)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    scores = scores.reshape(*scores.shape[:4], max_blocks * block_size)

    query_position = start[:, None] + jnp.arange(queries)  # [rows, queries]
    key_position = jnp.arange(max_blocks * block_size)
    visible = key_position <= query_position[..., None]
    if window is not None:
        visible &= key_position > query_position[..., None] - window
    visible &= jnp.repeat(table >= 0, block_size, axis=1)[:, None]
    if length is not None:
        visible &= key_position < length[:, None, None]
    any_sees = jnp.any(visible, axis=1).reshape(rows, max_blocks, 1, block_size, 1)
    values = jnp.where(any_sees, values, 0)  # zero times NaN is NaN
    visible = visible[:, None, None]  # [rows, 1, 1, queries, keys]

    scores = jnp.where(visible, scores, -jnp.inf)
    peak = jnp.max(scores, axis=-1, keepdims=True)
    weights = jnp.where(visible, jnp.exp(scores - jnp.where(jnp.isfinite(peak), peak, 0.0)), 0.0)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = (weights / jnp.where(total > 0, total, 1.0)).astype(values.dtype)
    weights = weights.reshape(*weights.shape[:4], max_blocks, block_size)
    out = jnp.einsum("rkgqmb,rmkbd->rqkgd", weights, values, preferred_element_type=jnp.float32)
    lse = jnp.where(total > 0, peak + jnp.log(jnp.where(total > 0, total, 1.0)), -jnp.inf)[..., 0]
    lse = jnp.moveaxis(lse.reshape(rows, num_heads, queries), 1, 2)
    return out.reshape(rows, queries, num_heads, head_dim).astype(q.dtype), lse
