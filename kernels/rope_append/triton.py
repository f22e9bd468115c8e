"""Triton kernel of rotary embedding with append: one program a token and head."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def rope_append_kernel(
    k_pool,
    v_pool,
    qkv,
    cos,
    sin,
    q_norm,
    k_norm,
    block,
    offset,
    num_blocks,
    layer_block,
    queries,
    eps: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    HALF: tl.constexpr,
):
    """Writes one head of one token: to `queries`, or in place to a pool at `layer_block` + block.

    HALF is the power of two that holds D / 2.
    """
    token = tl.program_id(0)
    head = tl.program_id(1)
    column = tl.arange(0, HALF)
    inside = column < D // 2
    at = (token * (HEADS + 2 * KV_HEADS) + head) * D + column
    first = tl.load(qkv + at, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(qkv + at + D // 2, mask=inside, other=0.0).to(tl.float32)
    if head < HEADS + KV_HEADS:
        if q_norm is not None:
            scale = tl.rsqrt((tl.sum(first * first, 0) + tl.sum(second * second, 0)) / D + eps)
            query = tl.load(q_norm + column, mask=inside, other=0.0).to(tl.float32)
            key = tl.load(k_norm + column, mask=inside, other=0.0).to(tl.float32)
            first *= scale * tl.where(head < HEADS, query, key)
            query = tl.load(q_norm + D // 2 + column, mask=inside, other=0.0).to(tl.float32)
            key = tl.load(k_norm + D // 2 + column, mask=inside, other=0.0).to(tl.float32)
            second *= scale * tl.where(head < HEADS, query, key)
        c = tl.load(cos + token * (D // 2) + column, mask=inside, other=0.0)
        s = tl.load(sin + token * (D // 2) + column, mask=inside, other=0.0)
        rotated = first * c - second * s
        second = second * c + first * s
        first = rotated
    if head < HEADS:
        target = queries + (token * HEADS + head) * D + column
        tl.store(target, first.to(queries.dtype.element_ty), mask=inside)
        tl.store(target + D // 2, second.to(queries.dtype.element_ty), mask=inside)
    else:
        number = tl.load(block + token)
        if number < num_blocks:
            row = (number + layer_block).to(tl.int64) * KV_HEADS + (head - HEADS) % KV_HEADS
            place = (row * BLOCK_SIZE + tl.load(offset + token)) * D + column
            if head < HEADS + KV_HEADS:
                tl.store(k_pool + place, first.to(k_pool.dtype.element_ty), mask=inside)
                tl.store(k_pool + place + D // 2, second.to(k_pool.dtype.element_ty), mask=inside)
            else:
                tl.store(v_pool + place, first.to(v_pool.dtype.element_ty), mask=inside)
                tl.store(v_pool + place + D // 2, second.to(v_pool.dtype.element_ty), mask=inside)
