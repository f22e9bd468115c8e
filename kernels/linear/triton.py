"""Triton kernels of the products of a few rows.

A decode step multiplies a few rows with every weight of the model once, so its time is the time of
reading the weights. `row_kernel` multiplies one row: each program streams a few rows of the weight
through registers and keeps no shared memory, so that many programs fit a multiprocessor and their
loads overlap. `tile_kernel` multiplies several rows on the tensor cores with the weight as the tall
operand, which is the side that wgmma wants 64 rows of. `add_norm_kernel` adds up what its programs
made of shares of the depth, and goes on to the norm of the next product.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dendrite_jax.kernels.prefetch import prefetch_group


@triton.jit
def _add_products(
    acc, weight, rows, columns, x, N, K: tl.constexpr, WHOLE: tl.constexpr, TILE: tl.constexpr
):
    """Adds one chunk's products of x with the named weight rows, element by element."""
    if WHOLE:
        w = TILE(weight, rows, columns, None, K)
    else:
        w = TILE(weight, rows, columns, (rows < N)[:, None] & (columns < K)[None, :], K)
    return acc + w.to(tl.float32) * x[None, :]


@triton.jit
def _chunk(array, columns, K: tl.constexpr, WHOLE: tl.constexpr):
    """Elements of a vector as float32."""
    if WHOLE:
        return tl.load(array + columns).to(tl.float32)
    return tl.load(array + columns, mask=columns < K, other=0.0).to(tl.float32)


@triton.jit
def row_kernel(
    x,
    weight,
    norm,
    bias,
    residual,
    ahead,
    out,
    eps: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    TILE: tl.constexpr,
    SWIGLU: tl.constexpr,
    ROWS: tl.constexpr,
    CHUNK: tl.constexpr,
    UNROLL: tl.constexpr,
    AHEAD_GROUPS: tl.constexpr,
):
    """out[N] = epilogue(norm(x)[K] @ weight[N, K].T); with SWIGLU the weight is [2N, K].

    TILE reads a tile of the weight (see `loads`). The norm's scale is one number for the row, so it
    multiplies the finished sums; only its weight enters the products. The last programs prefetch
    AHEAD_GROUPS of `ahead`, one each.
    """
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    kept = rows < N
    lanes = tl.arange(0, CHUNK)
    WHOLE: tl.constexpr = K % CHUNK == 0 and N % ROWS == 0
    acc = tl.zeros([ROWS, CHUNK], tl.float32)
    gate = tl.zeros([ROWS, CHUNK], tl.float32)
    squares = tl.zeros([CHUNK], tl.float32)
    for start in tl.range(0, K, CHUNK, loop_unroll_factor=UNROLL):
        columns = start + lanes
        xs = _chunk(x, columns, K, WHOLE)
        if norm is not None:
            squares += xs * xs
            xs *= _chunk(norm, columns, K, WHOLE)
        if SWIGLU:
            gate = _add_products(gate, weight, rows, columns, xs, N, K, WHOLE, TILE)
            acc = _add_products(acc, weight, rows + N, columns, xs, 2 * N, K, WHOLE, TILE)
        else:
            acc = _add_products(acc, weight, rows, columns, xs, N, K, WHOLE, TILE)
    y = tl.sum(acc, 1)
    g = tl.sum(gate, 1)
    if norm is not None:
        scale = tl.rsqrt(tl.sum(squares, 0) / K + eps)
        y *= scale
        g *= scale
    if bias is not None:
        if SWIGLU:
            g += tl.load(bias + rows, mask=kept, other=0.0).to(tl.float32)
            y += tl.load(bias + N + rows, mask=kept, other=0.0).to(tl.float32)
        else:
            y += tl.load(bias + rows, mask=kept, other=0.0).to(tl.float32)
    if SWIGLU:
        y *= g * tl.sigmoid(g)
    if residual is not None:
        y += tl.load(residual + rows, mask=kept, other=0.0).to(tl.float32)
    tl.store(out + rows, y.to(out.dtype.element_ty), mask=kept)
    if ahead is not None:
        group = tl.num_programs(0) - 1 - tl.program_id(0)
        if group < AHEAD_GROUPS:
            prefetch_group(ahead, group)


@triton.jit
def tile_kernel(
    x,
    weight,
    bias,
    out,
    M: tl.constexpr,
    N: tl.constexpr,
    K: tl.constexpr,
    TILE: tl.constexpr,
    SWIGLU: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """out[M, N] = epilogue(x[M, K] @ weight[N, K].T); with SWIGLU the weight is [2N, K].

    With SPLITS > 1 program axis 2 takes a share of K each and `out` is f32[SPLITS, M, N], the sums
    before any epilogue. K is a multiple of SPLITS * BLOCK_K. Programs that share weight rows follow
    each other, so that they are read from memory once.
    """
    tokens = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    rows = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    kept = rows < N
    used = tokens < M
    share: tl.constexpr = K // SPLITS
    columns = split * share + tl.arange(0, BLOCK_K)
    x_at = x + tokens[None, :] * K + columns[:, None]
    acc = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    gate = tl.zeros([BLOCK_N, BLOCK_M], tl.float32)
    for start in range(0, share, BLOCK_K):
        xs = tl.load(x_at + start, mask=used[None, :], other=0.0)
        w = TILE(weight, rows, columns + start, kept[:, None], K).to(xs.dtype)
        if SWIGLU:
            gate = tl.dot(w, xs, gate, input_precision="ieee")
            w = TILE(weight, rows + N, columns + start, kept[:, None], K).to(xs.dtype)
        acc = tl.dot(w, xs, acc, input_precision="ieee")
    if bias is not None:
        if SWIGLU:
            gate += tl.load(bias + rows, mask=kept, other=0.0).to(tl.float32)[:, None]
            acc += tl.load(bias + N + rows, mask=kept, other=0.0).to(tl.float32)[:, None]
        else:
            acc += tl.load(bias + rows, mask=kept, other=0.0).to(tl.float32)[:, None]
    if SWIGLU:
        acc *= gate * tl.sigmoid(gate)
    at = tokens[None, :] * N + rows[:, None]
    inside = kept[:, None] & used[None, :]
    tl.store(out + split * M * N + at, acc.to(out.dtype.element_ty), mask=inside)


@triton.jit
def add_norm_kernel(
    parts,
    bias,
    residual,
    norm,
    out,
    normed,
    eps: tl.constexpr,
    M: tl.constexpr,
    N: tl.constexpr,
    SPLITS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out[M, N] = residual + bias + the sum of parts[SPLITS, M, N], and the RMS norm of that.

    A program takes a row. The norm is that of the rounded sum, which is what a layer of its own
    would read.
    """
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    kept = column < N
    at = row * N + column
    y = tl.load(residual + at, mask=kept, other=0.0).to(tl.float32)
    if bias is not None:
        y += tl.load(bias + column, mask=kept, other=0.0).to(tl.float32)
    for split in tl.static_range(SPLITS):
        y += tl.load(parts + split * M * N + at, mask=kept, other=0.0).to(tl.float32)
    rounded = y.to(out.dtype.element_ty)
    tl.store(out + at, rounded, mask=kept)
    y = rounded.to(tl.float32)
    scaled = (y * tl.rsqrt(tl.sum(y * y, 0) / N + eps)).to(out.dtype.element_ty)
    y = scaled.to(tl.float32) * tl.load(norm + column, mask=kept, other=0.0).to(tl.float32)
    tl.store(normed + at, y.to(out.dtype.element_ty), mask=kept)
