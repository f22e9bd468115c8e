"""The public call of tree attention."""

from __future__ import annotations

from jax import Array

from dendrite_jax.kernels.tree_attention import reference


def tree_attention(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int,
    table: Array,
    length: Array,
    *,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Array, Array]:
    """Attention of one new token a lane over the lane's cached tokens, itself included.

    Args:
      q: [lanes, heads, head_dim], after rotary embedding.
      k_pool, v_pool: [layers, blocks, kv_heads, block_size, head_dim].
      layer: which layer of the pool to read.
      table: i32[lanes, max_blocks], the physical block of each logical block, −1 for none. Lanes
        that share a prefix name the same blocks.
      length: i32[lanes], cached tokens of the lane, the new one included; 0 for an idle lane.
      scale: multiplies the scores; 1/sqrt(head_dim) when None.
      window: only the last `window` tokens are seen, the new one included; None sees all.
      softcap: scores become `softcap * tanh(scores / softcap)`; None leaves them.

    Returns:
      The output [lanes, heads, head_dim] in q's dtype, and the log-sum-exp of the scores
      f32[lanes, heads]. An idle lane gives zeros and −inf.
    """
    if scale is None:
        scale = q.shape[-1] ** -0.5
    return reference.tree_attention(
        q, k_pool, v_pool, layer, table, length, scale=scale, window=window, softcap=softcap
    )
