"""Triton kernel of paged prefill: flash attention whose keys and values lie in blocks of the pool.

A program takes one kv head and a tile of rows; a row is one query of one of the kv head's query
heads, so that a key is read once for the whole group. It walks along the block table: first the
blocks that every row of the tile sees whole, then, with masks, those on the diagonal.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dendrite_jax.kernels.flash import BLOCK, LN2, LOWEST, UNSEEN, add_keys, scaled


@triton.jit
def _blocks(table, at, end, KEYS: tl.constexpr):
    """Blocks of the KEYS keys from position `at`, one value a key; 0 from position `end` on."""
    position = at + tl.arange(0, KEYS)
    return tl.load(table + position // BLOCK, mask=position < end, other=0)


@triton.jit
def prefill_kernel(
    q,
    k_pool,
    v_pool,
    table,
    start,
    held,
    layer_block,
    num_queries,
    max_blocks,
    out,
    lse,
    scale: tl.constexpr,
    softcap: tl.constexpr,
    window: tl.constexpr,
    KV_HEADS: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    DIM: tl.constexpr,
    PRECISION: tl.constexpr,
    LAYER_TRACED: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Attention of ROWS rows (queries times group members) of one branch and kv head.

    Grid: (tiles of rows, KV_HEADS, branches). The tiles with the most keys start first.

    Operands:
      q, out: [branches, num_queries, KV_HEADS * G, D].
      k_pool, v_pool: [layers, blocks, KV_HEADS, BLOCK, D].
      table: i32[branches, max_blocks].
      start: i32[branches], the first query's position.
      held: i32[branches], the tokens of a branch, which bound what it reads.
      layer_block: the layer's first block among those of all layers, an integer or, if
        LAYER_TRACED, a pointer to it.
      lse: f32[branches, num_queries, KV_HEADS * G].
    """
    if LAYER_TRACED:
        layer_block = tl.load(layer_block)
    tile = tl.num_programs(0) - 1 - tl.program_id(0)
    head = tl.program_id(1)
    row = tl.program_id(2)
    rows = tile * ROWS + tl.arange(0, ROWS)
    query = rows // G
    d = tl.arange(0, DIM)
    first = tl.load(start + row)
    tokens = tl.load(held + row)
    table += row * max_blocks
    row_mask = (query < num_queries)[:, None] & (d < D)[None, :]
    target = ((row * num_queries + query).to(tl.int64) * KV_HEADS + head) * G + rows % G
    queries = tl.load(q + target[:, None] * D + d[None, :], mask=row_mask, other=0.0)
    peak = tl.full([ROWS], LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIM], tl.float32)
    position = first + query
    lowest = first + tile * ROWS // G
    highest = first + tl.minimum((tile * ROWS + ROWS - 1) // G, num_queries - 1)
    end = tl.minimum(highest + 1, tokens)
    begin = 0
    whole = tl.minimum(lowest + 1, end) // KEYS * KEYS
    if window > 0:
        begin = tl.maximum(lowest - window + 1, 0) // KEYS * KEYS
        whole = begin
    keys = tl.arange(0, KEYS)
    block = _blocks(table, begin, end, KEYS)
    for at in range(begin, end, KEYS):
        here = at + keys
        key_row = ((block + layer_block).to(tl.int64) * KV_HEADS + head) * BLOCK + keys % BLOCK
        kv_at = key_row[:, None] * D + d[None, :]
        inside = (here < end)[:, None] & (d < D)[None, :]
        next_block = _blocks(table, at + KEYS, end, KEYS)
        k = tl.load(k_pool + kv_at, mask=inside, other=0.0)
        scores = scaled(tl.dot(queries, tl.trans(k), input_precision=PRECISION), scale, softcap)
        if at >= whole:
            seen = (here[None, :] <= position[:, None]) & (here < end)[None, :]
            if window > 0:
                seen = seen & (here[None, :] > position[:, None] - window)
            scores = tl.where(seen, scores, UNSEEN)
        v = tl.load(v_pool + kv_at, mask=inside, other=0.0)
        peak, total, acc = add_keys(scores, v, peak, total, acc, PRECISION)
        block = next_block
    filled = tl.where(total > 0, total, 1.0)
    result = (acc / filled[:, None]).to(out.dtype.element_ty)
    tl.store(out + target[:, None] * D + d[None, :], result, mask=row_mask)
    merged = tl.where(total > 0, (peak + tl.log2(filled)) * LN2, float("-inf"))
    tl.store(lse + target, merged, mask=query < num_queries)
