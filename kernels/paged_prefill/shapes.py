"""Tile sizes of paged prefill, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrefillTiles:
    """How paged prefill cuts queries and keys."""

    rows: int = 128
    """Rows (queries times query heads of a kv head) of a program."""
    keys: int = 64
    """Keys of one iteration."""
    warps: int = 8
    stages: int = 3


def prefill_tiles(rows: int, head_dim: int, itemsize: int) -> PrefillTiles:
    """Tile sizes for `rows` rows a branch and kv head."""
    wide = head_dim * itemsize > 256
    if rows <= 64:
        return PrefillTiles(rows=64 if rows > 16 else 16, keys=32 if wide else 64, warps=4)
    return PrefillTiles(keys=32 if wide else 64, stages=2 if wide else 3)
