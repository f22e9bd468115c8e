"""The public call of rotary embedding with append."""

from __future__ import annotations

from jax import Array

from dendrite_jax.kernels.checks import check_pools
from dendrite_jax.kernels.dispatch import choose_implementation
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy
from dendrite_jax.kernels.rope_append import reference


def rope_append(
    qkv: Array,
    rope: tuple[Array, Array],
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    block: Array,
    offset: Array,
    *,
    q_norm: Array | None = None,
    k_norm: Array | None = None,
    eps: float = 1e-5,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> tuple[Array, Array, Array]:
    """Splits a projection into heads, rotates queries and keys, and appends keys and values.

    Args:
      qkv: [lanes, tokens, (heads + 2 * kv_heads) * head_dim], queries first, then keys, values.
      rope: cosines and sines f32[lanes, tokens, head_dim / 2] (Su et al. 2021); halves of a head
        are paired as in Hugging Face.
      k_pool, v_pool: [layers, blocks, kv_heads, block_size, head_dim]; reuse the returned pools
        and drop these, so that they are updated in place.
      layer: which layer of the pool to write, an int or i32[]; an array's range is not checked.
      block: i32[lanes, tokens], the physical block of each token; `blocks` or more drops it.
      offset: i32[lanes, tokens], the token's place within its block.
      q_norm, k_norm: [head_dim], weights of an RMS norm of each query and key head before the
        rotation; both or neither.
      eps: added to the mean square inside that norm.
      policy: which implementation runs.

    Returns:
      The queries [lanes, tokens, heads, head_dim] in qkv's dtype, and the pools.

    Raises:
      ValueError: shapes that do not fit together, or one norm without the other.
      UnsupportedError: the Triton kernel cannot be launched here.
    """
    _check(qkv, rope, k_pool, v_pool, layer, block, offset, q_norm, k_norm)
    if choose_implementation(policy) == "xla":
        compute = reference.rope_append
    else:
        from dendrite_jax.kernels.rope_append import gpu

        compute = gpu.rope_append
    return compute(
        qkv, rope, k_pool, v_pool, layer, block, offset, q_norm=q_norm, k_norm=k_norm, eps=eps
    )


def _check(
    qkv: Array,
    rope: tuple[Array, Array],
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    block: Array,
    offset: Array,
    q_norm: Array | None,
    k_norm: Array | None,
) -> None:
    """Raises ValueError for arguments that do not fit together."""
    check_pools(k_pool, v_pool, layer)
    _, _, kv_heads, _, head_dim = k_pool.shape
    least = (2 * kv_heads + 1) * head_dim
    if qkv.ndim != 3 or qkv.shape[2] % head_dim or qkv.shape[2] < least:
        raise ValueError(
            f"qkv has shape {qkv.shape}, not [lanes, tokens, (heads + 2 * {kv_heads}) * {head_dim}]"
        )
    if head_dim % 2:
        raise ValueError(f"head_dim is {head_dim}; rotary embedding pairs the halves of a head")
    if (q_norm is None) != (k_norm is None):
        raise ValueError("q_norm and k_norm: one is given without the other")
    tokens, half, weight = qkv.shape[:2], (*qkv.shape[:2], head_dim // 2), (head_dim,)
    wanted = {
        "cosines": (rope[0], half),
        "sines": (rope[1], half),
        "block": (block, tokens),
        "offset": (offset, tokens),
        "q_norm": (q_norm, weight),
        "k_norm": (k_norm, weight),
    }
    for name, (array, shape) in wanted.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, not {shape}")
