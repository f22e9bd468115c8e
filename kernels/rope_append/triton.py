"""Triton kernel of rotary embedding with append: one program a token and a few heads."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _normed(
    first, second, q_norm, k_norm, query, column, inside, eps: tl.constexpr, D: tl.constexpr
):
    """RMS norm of heads [heads, HALF] in two halves; `query` tells whose weight a head takes."""
    scale = tl.rsqrt((tl.sum(first * first, 1) + tl.sum(second * second, 1)) / D + eps)[:, None]
    of_query = tl.load(q_norm + column, mask=inside, other=0.0).to(tl.float32)
    of_key = tl.load(k_norm + column, mask=inside, other=0.0).to(tl.float32)
    first *= scale * tl.where(query, of_query, of_key)
    of_query = tl.load(q_norm + D // 2 + column, mask=inside, other=0.0).to(tl.float32)
    of_key = tl.load(k_norm + D // 2 + column, mask=inside, other=0.0).to(tl.float32)
    second *= scale * tl.where(query, of_query, of_key)
    return first, second


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
    limit,
    layer_block,
    queries,
    eps: tl.constexpr,
    HEADS: tl.constexpr,
    KV_HEADS: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    D: tl.constexpr,
    HALF: tl.constexpr,
    HEAD_TILE: tl.constexpr,
    LAYER_TRACED: tl.constexpr,
):
    """Writes heads of one token: to `queries`, or in place to a pool at `layer_block` + block.

    Grid: (tokens of all lanes, tiles of HEAD_TILE heads of queries, keys and values).

    Operands:
      k_pool, v_pool: [layers, blocks, KV_HEADS, BLOCK_SIZE, D].
      qkv: [tokens, HEADS + 2 * KV_HEADS, D].
      cos, sin: f32[tokens, D / 2].
      q_norm, k_norm: [D], or None.
      block, offset: i32[tokens].
      layer_block: an integer or, if LAYER_TRACED, a pointer to it.
      queries: [tokens, HEADS, D].

    A block of `limit` or more is none. HALF is the power of two that holds D / 2; HEAD_TILE is how
    many heads a program takes.
    """
    if LAYER_TRACED:
        layer_block = tl.load(layer_block)
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEAD_TILE + tl.arange(0, HEAD_TILE)[:, None]
    column = tl.arange(0, HALF)[None, :]
    inside = column < D // 2
    real = inside & (head < HEADS + 2 * KV_HEADS)
    at = (token * (HEADS + 2 * KV_HEADS) + head) * D + column
    plain_first = tl.load(qkv + at, mask=real, other=0.0)
    plain_second = tl.load(qkv + at + D // 2, mask=real, other=0.0)
    first = plain_first.to(tl.float32)
    second = plain_second.to(tl.float32)
    if q_norm is not None:
        first, second = _normed(first, second, q_norm, k_norm, head < HEADS, column, inside, eps, D)
    c = tl.load(cos + token * (D // 2) + column, mask=inside, other=0.0)
    s = tl.load(sin + token * (D // 2) + column, mask=inside, other=0.0)
    rotated_first = first * c - second * s
    rotated_second = second * c + first * s
    target = queries + (token * HEADS + head) * D + column
    is_query = inside & (head < HEADS)
    tl.store(target, rotated_first.to(queries.dtype.element_ty), mask=is_query)
    tl.store(target + D // 2, rotated_second.to(queries.dtype.element_ty), mask=is_query)
    to = tl.load(block + token)
    if to < limit:
        row = ((layer_block + to).to(tl.int64) * KV_HEADS + head - HEADS) * BLOCK_SIZE
        target = k_pool + (row + tl.load(offset + token)) * D + column
        is_key = inside & (head >= HEADS) & (head < HEADS + KV_HEADS)
        tl.store(target, rotated_first.to(k_pool.dtype.element_ty), mask=is_key)
        tl.store(target + D // 2, rotated_second.to(k_pool.dtype.element_ty), mask=is_key)
        row -= KV_HEADS * BLOCK_SIZE
        target = v_pool + (row + tl.load(offset + token)) * D + column
        is_value = real & (head >= HEADS + KV_HEADS)
        tl.store(target, plain_first.to(v_pool.dtype.element_ty), mask=is_value)
        tl.store(target + D // 2, plain_second.to(v_pool.dtype.element_ty), mask=is_value)
