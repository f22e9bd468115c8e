"""Tile sizes of the product, as data."""

from __future__ import annotations

from dataclasses import dataclass

MAX_ROWS = 64
"""Most rows of x; beyond, XLA's own products are as fast."""

MULTIPROCESSORS = 132
"""Of the GPU that tiles were chosen on."""

PREFETCH_BYTES = 8 * 2**20
"""Most bytes that a product of one row prefetches of the next weight."""

NORM_ELEMENTS = 512
"""Elements of a row that a warp of `add_norm_kernel` takes."""


@dataclass(frozen=True)
class RowBlocks:
    """How `row_kernel` cuts a product with one row."""

    rows: int = 4
    """Weight rows a program sums."""
    chunk: int = 1024
    """Columns read at a time."""
    unroll: int = 4
    """Chunks whose loads may be in flight together."""
    warps: int = 4


@dataclass(frozen=True)
class TileBlocks:
    """How `tile_kernel` cuts a product with several rows."""

    rows: int = 64
    """Weight rows of a tile; wgmma wants multiples of 64."""
    columns: int = 128
    """Depth of one tile step."""
    splits: int = 1
    """Shares of the depth that are summed by separate programs."""
    warps: int = 4
    stages: int = 4


def row_blocks(depth: int) -> RowBlocks:
    """Tile sizes for a product of one row with a weight of `depth` columns."""
    if depth < 1024:
        return RowBlocks(rows=4, chunk=256)
    if depth <= 8192:
        return RowBlocks(rows=2, chunk=2048, unroll=2)
    return RowBlocks(rows=1, chunk=2048, unroll=7)


def tile_blocks(rows: int, outputs: int, depth: int, swiglu: bool, itemsize: int) -> TileBlocks:
    """Tile sizes for a product of several rows with [outputs, depth] of `itemsize` bytes."""
    tiles = -(-outputs // 64)
    columns = 256 // itemsize
    splits = 1
    while not swiglu and tiles * splits < 96 and depth % (splits * 2 * columns) == 0:
        splits *= 2
    while depth % (splits * columns):
        columns //= 2
    stages = 4 if itemsize <= 2 else 3
    if itemsize <= 2 and not swiglu and tiles * splits <= MULTIPROCESSORS:
        stages = 6  # a program has its multiprocessor to itself, and all of the shared memory
    return TileBlocks(columns=columns, splits=splits, stages=stages)


def depth_shares(rows: int, outputs: int, depth: int) -> int:
    """Shares of the depth in XLA's products of many rows, to give every multiprocessor a tile.

    Products of at most 128 rows cuBLAS splits by itself.
    """
    tiles = -(-rows // 128) * -(-outputs // 128)
    split = rows > 128 and tiles * 2 <= MULTIPROCESSORS and depth % 2048 == 0
    return 2 if split else 1
