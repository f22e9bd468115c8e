"""The Triton rotary embedding with append as a JAX function."""

from __future__ import annotations

from typing import Any

from jax import Array
from jax.custom_batching import custom_vmap

from dendrite_jax.kernels.batching import (
    batch,
    fold,
    fold_blocks,
    fold_pool,
    refuse_batched,
    traced_layer,
    unfold,
)
from dendrite_jax.kernels.launch import array_type, in_order, launch, layer_operand, power_of_two
from dendrite_jax.kernels.rope_append import triton as kernels

HEAD_TILE = 8
"""Heads that one program, of one warp, rotates or appends."""


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
    limit: int | None = None,
) -> tuple[Array, Array, Array]:
    """`dendrite_jax.kernels.rope_append.rope_append` on Triton; the pools alias its outputs.

    `limit` is the first id that names no block, the blocks of one layer if None. Under `vmap` the
    lanes of all problems are the lanes of one launch.

    Raises:
      UnsupportedError: the layer or the norms' weights differ between the problems of a `vmap`.
    """
    end = limit or k_pool.shape[1]

    @custom_vmap
    def append(
        k_pool: Array,
        v_pool: Array,
        qkv: Array,
        rope: tuple[Array, Array],
        norms: tuple[Array | None, Array | None],
        block: Array,
        offset: Array,
        *traced: Array,
    ) -> tuple[Array, Array, Array]:
        number = traced[0] if traced else layer
        return _launch(k_pool, v_pool, qkv, rope, norms, number, block, offset, eps, end)

    @append.def_vmap
    def _mapped(size: int, batched: Any, k_pool: Any, v_pool: Any, *rest: Any) -> Any:
        qkv, rope, norms, block, offset, *traced = rest
        refuse_batched("q_norm and k_norm", batched[4])
        refuse_batched("layer", batched[7:])
        k_pool, v_pool = batch(k_pool, batched[0], size), batch(v_pool, batched[1], size)
        shape = k_pool.shape
        cos, sin = (fold(part, flag, size) for part, flag in zip(rope, batched[3], strict=True))
        queries, k_pool, v_pool = rope_append(
            fold(qkv, batched[2], size),
            (cos, sin),
            fold_pool(k_pool),
            fold_pool(v_pool),
            traced[0] if traced else layer,
            fold_blocks(batch(block, batched[5], size), k_pool, end),
            fold(offset, batched[6], size),
            q_norm=norms[0],
            k_norm=norms[1],
            eps=eps,
            limit=size * shape[1] * shape[2],
        )
        outputs = unfold(queries, size), k_pool.reshape(shape), v_pool.reshape(shape)
        return outputs, (True, True, True)

    norms = q_norm, k_norm
    return append(k_pool, v_pool, qkv, rope, norms, block, offset, *traced_layer(layer))


def _launch(
    k_pool: Array,
    v_pool: Array,
    qkv: Array,
    rope: tuple[Array, Array],
    norms: tuple[Array | None, Array | None],
    layer: int | Array,
    block: Array,
    offset: Array,
    eps: float,
    limit: int,
) -> tuple[Array, Array, Array]:
    """The kernel over all tokens."""
    _, num_blocks, kv_heads, block_size, head_dim = k_pool.shape
    lanes, tokens, width = qkv.shape
    heads = width // head_dim - 2 * kv_heads
    layer_block, layer_traced = layer_operand(layer, num_blocks)
    return launch(
        *in_order(
            kernels.rope_append_kernel,
            k_pool=k_pool,
            v_pool=v_pool,
            qkv=qkv,
            cos=rope[0],
            sin=rope[1],
            q_norm=norms[0],
            k_norm=norms[1],
            block=block,
            offset=offset,
            limit=limit,
            layer_block=layer_block,
        ),
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
        HALF=power_of_two(head_dim // 2),
        HEAD_TILE=HEAD_TILE,
        LAYER_TRACED=layer_traced,
    )
