"""Triton kernel that merges the partials of tree attention by their log-sum-exps.

To merge by the last program that arrives at a tile was slower: a fence and an atomic cost more than
a second launch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dendrite_jax.kernels.flash import LN2, LOWEST


@triton.jit
def merge_kernel(
    partial_out,
    partial_lse,
    order,
    tile_worker,
    tile_pieces,
    lanes,
    wide_tiles,
    narrow_base,
    out,
    lse,
    KV_HEADS: tl.constexpr,
    G: tl.constexpr,
    D: tl.constexpr,
    DIM: tl.constexpr,
    WIDE: tl.constexpr,
    WIDE_LANES: tl.constexpr,
    WIDE_ROWS: tl.constexpr,
    NARROW_LANES: tl.constexpr,
    NARROW_ROWS: tl.constexpr,
    ROWS: tl.constexpr,
    PIECES: tl.constexpr,
):
    """Combines the partials of ROWS rows of a narrow tile, PIECES of them at a time.

    Grid: (narrow tiles * NARROW_ROWS / ROWS, KV_HEADS).

    Operands, beside the plan's arrays (see `Plan`):
      partial_out, partial_lse: f32[rows, D] and f32[rows], as `partial_kernel` leaves them.
      lanes, wide_tiles, narrow_base: integers, as there.
      out: [lanes, KV_HEADS * G, D].
      lse: f32[lanes, KV_HEADS * G], natural.
    """
    narrow_tile = tl.program_id(0) // (NARROW_ROWS // ROWS)
    head = tl.program_id(1)
    rows = tl.program_id(0) % (NARROW_ROWS // ROWS) * ROWS + tl.arange(0, ROWS)
    lane = narrow_tile * NARROW_LANES + rows // G
    real = (rows // G < NARROW_LANES) & (lane < lanes)
    source = tl.load(order + lane, mask=real, other=0)
    worker = tl.load(tile_worker + wide_tiles + narrow_tile)
    narrow_pieces = tl.load(tile_pieces + wide_tiles + narrow_tile)
    narrow_at = ((worker + narrow_tile) * KV_HEADS + head) * NARROW_ROWS + narrow_base
    wide_pieces = 0
    wide_at = 0
    if WIDE:
        wide_tile = narrow_tile * NARROW_LANES // WIDE_LANES
        worker = tl.load(tile_worker + wide_tile)
        wide_pieces = tl.load(tile_pieces + wide_tile)
        wide_at = ((worker + wide_tile) * KV_HEADS + head) * WIDE_ROWS
        wide_at += narrow_tile * NARROW_LANES % WIDE_LANES * G
    d = tl.arange(0, DIM)
    pieces = wide_pieces + narrow_pieces
    peak = tl.full([ROWS], LOWEST, tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    acc = tl.zeros([ROWS, DIM], tl.float32)
    for start in range(0, pieces, PIECES):
        piece = start + tl.arange(0, PIECES)
        listed = (piece < pieces)[:, None] & real[None, :]
        at = (
            rows[None, :]
            + tl.where(
                piece < wide_pieces,
                wide_at + piece * (KV_HEADS * WIDE_ROWS),
                narrow_at + (piece - wide_pieces) * (KV_HEADS * NARROW_ROWS),
            )[:, None]
        )
        weight = tl.load(partial_lse + at, mask=listed, other=LOWEST)
        values = tl.load(
            partial_out + at[:, :, None] * D + d[None, None, :],
            mask=listed[:, :, None] & (d < D)[None, None, :],
            other=0.0,
        )
        higher = tl.maximum(peak, tl.max(weight, 0))
        shrink = tl.exp2(peak - higher)
        weight = tl.where(weight > LOWEST, tl.exp2(weight - higher[None, :]), 0.0)
        total = total * shrink + tl.sum(weight, 0)
        acc = acc * shrink[:, None] + tl.sum(weight[:, :, None] * values, 0)
        peak = higher
    target = (source * KV_HEADS + head) * G + rows % G
    filled = tl.where(total > 0, total, 1.0)
    result = (acc / filled[:, None]).to(out.dtype.element_ty)
    tl.store(out + target[:, None] * D + d[None, :], result, mask=real[:, None] & (d < D)[None, :])
    merged = tl.where(total > 0, (peak + tl.log2(filled)) * LN2, float("-inf"))
    tl.store(lse + target, merged, mask=real)
