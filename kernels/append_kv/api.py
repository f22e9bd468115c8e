"""The public call of the append kernel."""

from __future__ import annotations

from jax import Array

from dendrite_jax.kernels.append_kv import reference
from dendrite_jax.kernels.checks import check_pools


def append_kv(
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    k: Array,
    v: Array,
    block: Array,
    offset: Array,
) -> tuple[Array, Array]:
    """Writes keys and values of new tokens into one layer of the pool, in place under jit.

    Args:
      k_pool, v_pool: [layers, blocks, kv_heads, block_size, head_dim]; reuse the returned pools
        and drop these, so that XLA updates the buffers in place.
      layer: which layer to write, an int or i32[]; an array's range is not checked.
      k, v: [..., kv_heads, head_dim], the new tokens, keys after rotary embedding.
      block: i32[...], the physical block of each token; `blocks` or more drops the token.
      offset: i32[...], the token's place within its block.

    Returns:
      The updated pools.

    Raises:
      ValueError: shapes that do not fit together.
    """
    check_pools(k_pool, v_pool, layer)
    wanted = (*block.shape, k_pool.shape[2], k_pool.shape[4])
    if k.shape != wanted or v.shape != wanted or offset.shape != block.shape:
        raise ValueError(
            f"k {k.shape}, v {v.shape} and offset {offset.shape} do not fit block {block.shape} "
            f"and pools of {k_pool.shape[2]} kv heads of {k_pool.shape[4]}"
        )
    return reference.append_kv(k_pool, v_pool, layer, k, v, block, offset)
