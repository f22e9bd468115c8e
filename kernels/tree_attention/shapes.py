"""Tile sizes of tree attention, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TreeTiles:
    """How tree attention cuts lanes, keys and work; static in a plan and in its kernels."""

    wide_rows: int = 64
    """Rows (lanes times query heads of a kv head) of a wide tile."""
    wide_keys: int = 64
    """Keys of one iteration of a wide tile."""
    narrow_rows: int = 16
    narrow_keys: int = 64
    wide_cost: int = 2
    """Cost of a block in a wide tile, against the costs below, when work is shared out."""
    narrow_cost: int = 3
    wide_tile_cost: int = 43
    """Cost of starting on a wide tile, for each program that has a part of it."""
    narrow_tile_cost: int = 18
    programs: int = 264
    """Programs of a launch: multiprocessors times how many of them one holds."""
    warps: int = 4
    stages: int = 3
    merge_rows: int = 1
    """Rows that a program of the merge combines."""
    merge_pieces: int = 8
    """Partials that it reads at a time."""

    def lanes(self, group: int) -> tuple[int, int]:
        """Lanes of a wide and of a narrow tile, for `group` query heads a kv head."""
        narrow = self.narrow_rows // group
        return self.wide_rows // group // narrow * narrow, narrow


def tree_tiles(
    lanes: int, num_heads: int, num_kv_heads: int, head_dim: int, itemsize: int
) -> TreeTiles:
    """Tile sizes for a number of lanes, and a head dimension of elements of `itemsize` bytes."""
    rows = lanes * num_heads  # of q
    narrow_rows = max(16, 1 << (num_heads // num_kv_heads - 1).bit_length())
    keys = 64 if head_dim * itemsize <= 256 else 32
    merge: dict[str, int] = {}
    if rows <= 1024:  # which have many partials each
        merge = {"merge_pieces": 32 if head_dim <= 128 else 16}
    elif rows >= 4096:  # too many for a program each
        merge = {"merge_rows": 4, "merge_pieces": 4}
    return TreeTiles(
        narrow_rows=narrow_rows,
        wide_rows=max(64, 4 * narrow_rows),
        wide_keys=keys,
        narrow_keys=64 if head_dim * itemsize <= 512 else 32,
        warps=4 if head_dim * itemsize <= 512 else 8,  # with four its registers would spill
        programs=132 if num_kv_heads == 1 and rows <= 512 else 264,  # the merge of more costs more
        **merge,
    )
