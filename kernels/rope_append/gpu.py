"""The Triton rotary embedding with append as a JAX function."""

from __future__ import annotations

from jax import Array

from dendrite_jax.kernels.launch import array_type, launch
from dendrite_jax.kernels.rope_append import triton as kernels

HEAD_TILE = 8
"""Heads that one program, of one warp, rotates or appends."""


def rope_append(
    qkv: Array,
    rope: tuple[Array, Array],
    k_pool: Array,
    v_pool: Array,
    layer: int,
    block: Array,
    offset: Array,
    *,
    q_norm: Array | None,
    k_norm: Array | None,
    eps: float,
) -> tuple[Array, Array, Array]:
    """`dendrite_jax.kernels.rope_append.rope_append` on Triton; the pools alias its outputs."""
    _, num_blocks, kv_heads, block_size, head_dim = k_pool.shape
    lanes, tokens, width = qkv.shape
    heads = width // head_dim - 2 * kv_heads
    return launch(
        k_pool,
        v_pool,
        qkv,
        *rope,
        q_norm,
        k_norm,
        block,
        offset,
        num_blocks,
        layer * num_blocks,
        kernel=kernels.rope_append_kernel,
        grid=(lanes * tokens, -(-(heads + 2 * kv_heads) // HEAD_TILE)),
        out_type=(
            array_type((lanes, tokens, heads, head_dim), qkv.dtype),
            array_type(k_pool.shape, k_pool.dtype),
            array_type(v_pool.shape, v_pool.dtype),
        ),
        num_warps=1,
        aliases={0: 1, 1: 2},
        eps=eps,
        HEADS=heads,
        KV_HEADS=kv_heads,
        BLOCK_SIZE=block_size,
        D=head_dim,
        HALF=1 << (head_dim // 2 - 1).bit_length(),
        HEAD_TILE=HEAD_TILE,
    )
