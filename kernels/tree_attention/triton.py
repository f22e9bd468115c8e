"""Triton kernel of tree attention: the partial attention of each tile (triton_merge.py merges).

The plan (see plan.py) sorts lanes depth-first and cuts them into wide tiles and, inside those, into
narrow tiles. A tile owns a list of entries, one per physical block: the block, its column in the
table, and which lanes of the tile read it. A program takes one kv head and an equal share of all
entries, walks through the tiles that its share touches, and writes one normalised partial output
with its log-sum-exp per tile.

Narrow tiles have few rows, and reading keys and values is their whole cost. There the product is
transposed, keys times queries, so that the keys fill the 64 rows that wgmma wants.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dendrite_jax.kernels.flash import BLOCK, LOWEST, UNSEEN, add_keys, scaled
from dendrite_jax.kernels.tree_attention.entries import unpack

_unpack = triton.jit(unpack)


@triton.jit
def _visible(info, offset, lane, length, window: tl.constexpr):
    """Whether a row's lane reads a key: info and offset are keys', lane and length rows'."""
    column, first, end = _unpack(info)
    position = column * BLOCK + offset
    seen = (lane >= first) & (lane < end) & (position < length)
    if window > 0:
        seen = seen & (position >= length - window)
    return seen


@triton.jit
def _row_tile(order, lengths, tile_lane, rows, lanes, G: tl.constexpr, TILE_LANES: tl.constexpr):
    """Lane within the tile, whether it exists, its number in the batch, and its length."""
    inner = rows // G
    lane = tile_lane + inner
    real = (inner < TILE_LANES) & (lane < lanes)
    source = tl.load(order + lane, mask=real, other=0)
    length = tl.load(lengths + lane, mask=real, other=0)
    return inner, real, source, length


@triton.jit
def _listed(entry_block, entry_info, entry, stop, KEYS: tl.constexpr):
    """Blocks and infos of the next KEYS keys, one value a key; zeros past the end of the list.

    Tiles carry them from one iteration to the next, so that the address of a key never waits for
    a load of the same iteration, which would drain the pipeline of loads.
    """
    item = entry + tl.arange(0, KEYS) // BLOCK
    listed = item < stop
    block = tl.load(entry_block + item, mask=listed, other=0)
    info = tl.load(entry_info + item, mask=listed, other=0)
    return block, info


@triton.jit
def _wide_tile(
    q,
    k_pool,
    v_pool,
    order,
    lengths,
    entry_block,
    entry_info,
    tile_start,
    tile_full,
    period,
    entry,
    stop,
    elapsed,
    tile,
    slot,
    head,
    lanes,
    layer_block,
    partial_out,
    partial_lse,
    scale: tl.constexpr,
    softcap: tl.constexpr,
    window: tl.constexpr,
    KV_HEADS: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    DIM: tl.constexpr,
    PRECISION: tl.constexpr,
    TILE_LANES: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Attention of a wide tile's rows over its entries [entry, stop).

    Tiles that share blocks read them at about the same time, so that most reads find them in the
    cache: of the blocks that every lane sees, the first is one whose column leaves the same rest by
    `period` as `elapsed` does, the blocks that the program has been through before.
    """
    keys = tl.arange(0, KEYS)
    offset = keys % BLOCK
    full = tl.minimum(tl.load(tile_full + tile), stop) - entry
    middle = entry + tl.maximum(full, 0) // (KEYS // BLOCK) * (KEYS // BLOCK)
    every = tl.load(period)
    column = entry - tl.load(tile_start + tile)
    turn = (elapsed // (KEYS // BLOCK) * (KEYS // BLOCK) + every - column % every) % every
    turn = tl.where(turn < middle - entry, turn, 0)
    block, info = _listed(entry_block, entry_info, entry + turn, stop, KEYS)
    rows = tl.arange(0, ROWS)
    d = tl.arange(0, DIM)
    inner, real, source, length = _row_tile(
        order, lengths, tile * TILE_LANES, rows, lanes, G, TILE_LANES
    )
    row_mask = real[:, None] & (d < D)[None, :]
    q_at = ((source * KV_HEADS + head) * G + rows % G)[:, None] * D + d[None, :]
    queries = tl.load(q + q_at, mask=row_mask, other=0.0)
    peak = tl.full([ROWS], LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIM], tl.float32)
    for at in range(entry, stop, KEYS // BLOCK):
        key_row = ((block + layer_block).to(tl.int64) * KV_HEADS + head) * BLOCK + offset
        kv_at = key_row[:, None] * D + d[None, :]
        inside = (at + keys // BLOCK < stop)[:, None] & (d < D)[None, :]
        following = at + KEYS // BLOCK
        turned = following + turn
        turned = tl.where(turned < middle, turned, turned - (middle - entry))
        following = tl.where(following < middle, turned, following)
        next_block, next_info = _listed(entry_block, entry_info, following, stop, KEYS)
        k = tl.load(k_pool + kv_at, mask=inside, other=0.0)
        scores = scaled(tl.dot(queries, tl.trans(k), input_precision=PRECISION), scale, softcap)
        if at >= middle:
            seen = _visible(info[None, :], offset[None, :], inner[:, None], length[:, None], window)
            scores = tl.where(seen, scores, UNSEEN)
        v = tl.load(v_pool + kv_at, mask=inside, other=0.0)
        peak, total, acc = add_keys(scores, v, peak, total, acc, PRECISION)
        block = next_block
        info = next_info
    filled = tl.where(total > 0, total, 1.0)
    out_at = (slot + rows)[:, None] * D + d[None, :]
    tl.store(partial_out + out_at, acc / filled[:, None], mask=row_mask)
    lse = tl.where(total > 0, peak + tl.log2(filled), LOWEST)
    tl.store(partial_lse + slot + rows, lse, mask=real)


@triton.jit
def _narrow_tile(
    q,
    k_pool,
    v_pool,
    order,
    lengths,
    entry_block,
    entry_info,
    entry,
    stop,
    tile,
    slot,
    head,
    lanes,
    layer_block,
    partial_out,
    partial_lse,
    scale: tl.constexpr,
    softcap: tl.constexpr,
    window: tl.constexpr,
    KV_HEADS: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    DIM: tl.constexpr,
    PRECISION: tl.constexpr,
    TILE_LANES: tl.constexpr,
    ROWS: tl.constexpr,
    KEYS: tl.constexpr,
):
    """`_wide_tile` with keys as rows and queries as columns."""
    rows = tl.arange(0, ROWS)
    d = tl.arange(0, DIM)
    inner, real, source, length = _row_tile(
        order, lengths, tile * TILE_LANES, rows, lanes, G, TILE_LANES
    )
    row_mask = real[None, :] & (d < D)[:, None]
    q_at = ((source * KV_HEADS + head) * G + rows % G)[None, :] * D + d[:, None]
    queries = tl.load(q + q_at, mask=row_mask, other=0.0)
    peak = tl.full([ROWS], LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([DIM, ROWS], tl.float32)
    keys = tl.arange(0, KEYS)
    offset = keys % BLOCK
    block, info = _listed(entry_block, entry_info, entry, stop, KEYS)
    for at in range(entry, stop, KEYS // BLOCK):
        key_row = ((block + layer_block).to(tl.int64) * KV_HEADS + head) * BLOCK + offset
        kv_at = key_row[:, None] * D + d[None, :]
        inside = (at + keys // BLOCK < stop)[:, None] & (d < D)[None, :]
        next_block, next_info = _listed(entry_block, entry_info, at + KEYS // BLOCK, stop, KEYS)
        k = tl.load(k_pool + kv_at, mask=inside, other=0.0)
        scores = tl.dot(k, queries, input_precision=PRECISION)
        seen = _visible(info[:, None], offset[:, None], inner[None, :], length[None, :], window)
        scores = tl.where(seen, scaled(scores, scale, softcap), UNSEEN)
        higher = tl.maximum(peak, tl.max(scores, 0))
        shrink = tl.exp2(peak - higher)
        weights = tl.exp2(scores - higher[None, :])
        total = total * shrink + tl.sum(weights, 0)
        v = tl.load(v_pool + kv_at, mask=inside, other=0.0)
        acc = tl.dot(
            tl.trans(v), weights.to(v.dtype), acc * shrink[None, :], input_precision=PRECISION
        )
        peak = higher
        block = next_block
        info = next_info
    filled = tl.where(total > 0, total, 1.0)
    out_at = (slot + rows)[None, :] * D + d[:, None]
    tl.store(partial_out + out_at, acc / filled[None, :], mask=row_mask)
    lse = tl.where(total > 0, peak + tl.log2(filled), LOWEST)
    tl.store(partial_lse + slot + rows, lse, mask=real)


@triton.jit
def partial_kernel(
    q,
    k_pool,
    v_pool,
    order,
    lengths,
    entry_block,
    entry_info,
    work_start,
    work_tile,
    work_stop,
    tile_start,
    tile_full,
    period,
    lanes,
    wide_tiles,
    narrow_base,
    layer_block,
    partial_out,
    partial_lse,
    scale: tl.constexpr,
    softcap: tl.constexpr,
    window: tl.constexpr,
    KV_HEADS: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    DIM: tl.constexpr,
    PRECISION: tl.constexpr,
    LAYER_TRACED: tl.constexpr,
    WIDE: tl.constexpr,
    WIDE_LANES: tl.constexpr,
    WIDE_ROWS: tl.constexpr,
    WIDE_KEYS: tl.constexpr,
    NARROW_LANES: tl.constexpr,
    NARROW_ROWS: tl.constexpr,
    NARROW_KEYS: tl.constexpr,
    START_BLOCKS: tl.constexpr,
):
    """Attention of the tiles that one program's share of entries touches.

    Grid: (workers * KV_HEADS,), heads fastest.

    Operands, beside the plan's arrays (see `Plan`):
      q: [lanes, KV_HEADS * G, D].
      k_pool, v_pool: [layers, blocks, KV_HEADS, BLOCK, D].
      lengths: i32[lanes], in the plan's order.
      lanes, wide_tiles: integers.
      layer_block: the layer's first block among those of all layers, an integer or, if
        LAYER_TRACED, a pointer to it.
      partial_out, partial_lse: f32[rows, D] and f32[rows], the latter to base 2.

    Partials lie tile by tile: the wide ones at slot `worker + tile`, which no two pairs share since
    both only grow along the entries, then from row `narrow_base` the narrow ones likewise. WIDE is
    whether there are wide tiles at all, START_BLOCKS how many blocks of a wide tile are read in the
    time that starting on one takes.
    """
    if LAYER_TRACED:
        layer_block = tl.load(layer_block)
    head = tl.program_id(0) % KV_HEADS
    worker = tl.program_id(0) // KV_HEADS
    entry = tl.load(work_start + worker)
    last = tl.load(work_start + worker + 1)
    tile = tl.load(work_tile + worker)
    stop = tl.load(work_stop + worker)
    elapsed = 0
    while entry < last:
        if stop > entry:
            slot = (worker + tile) * KV_HEADS + head
            if WIDE and tile < wide_tiles:
                _wide_tile(
                    q=q,
                    k_pool=k_pool,
                    v_pool=v_pool,
                    order=order,
                    lengths=lengths,
                    entry_block=entry_block,
                    entry_info=entry_info,
                    tile_start=tile_start,
                    tile_full=tile_full,
                    period=period,
                    entry=entry,
                    stop=stop,
                    elapsed=elapsed,
                    tile=tile,
                    slot=slot * WIDE_ROWS,
                    head=head,
                    lanes=lanes,
                    layer_block=layer_block,
                    partial_out=partial_out,
                    partial_lse=partial_lse,
                    scale=scale,
                    softcap=softcap,
                    window=window,
                    KV_HEADS=KV_HEADS,
                    G=G,
                    D=D,
                    DIM=DIM,
                    PRECISION=PRECISION,
                    TILE_LANES=WIDE_LANES,
                    ROWS=WIDE_ROWS,
                    KEYS=WIDE_KEYS,
                )
            else:
                narrow = tile - wide_tiles
                slot -= wide_tiles * KV_HEADS
                _narrow_tile(
                    q=q,
                    k_pool=k_pool,
                    v_pool=v_pool,
                    order=order,
                    lengths=lengths,
                    entry_block=entry_block,
                    entry_info=entry_info,
                    entry=entry,
                    stop=stop,
                    tile=narrow,
                    slot=narrow_base + slot * NARROW_ROWS,
                    head=head,
                    lanes=lanes,
                    layer_block=layer_block,
                    partial_out=partial_out,
                    partial_lse=partial_lse,
                    scale=scale,
                    softcap=softcap,
                    window=window,
                    KV_HEADS=KV_HEADS,
                    G=G,
                    D=D,
                    DIM=DIM,
                    PRECISION=PRECISION,
                    TILE_LANES=NARROW_LANES,
                    ROWS=NARROW_ROWS,
                    KEYS=NARROW_KEYS,
                )
        elapsed += stop - entry + START_BLOCKS
        entry = stop
        tile += 1
        if entry < last:
            stop = tl.minimum(tl.load(tile_start + tile + 1), last)
