"""Plain-XLA append: one scatter into each pool."""

from __future__ import annotations

from jax import Array


def append_kv(
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    k: Array,
    v: Array,
    block: Array,
    offset: Array,
) -> tuple[Array, Array]:
    """Specification of `dendrite_jax.kernels.append_kv.append_kv`."""
    k_pool = k_pool.at[layer, block, :, offset].set(k.astype(k_pool.dtype), mode="drop")
    v_pool = v_pool.at[layer, block, :, offset].set(v.astype(v_pool.dtype), mode="drop")
    return k_pool, v_pool
