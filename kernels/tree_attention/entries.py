"""The word that tells of an entry of a plan which tokens it holds, and who reads them.

From the highest bit: the entry's column of the block table, the first lane of the tile that reads
it, and the first lane after that which does not.
"""

from __future__ import annotations

from jax import Array

LANE_BITS = 8
"""Bits of each of the two lanes, which are numbered within a tile."""
MAX_COLUMNS = 1 << (31 - 2 * LANE_BITS)
"""Most columns of a table: its number has what remains of 31 bits, so that no word is negative."""


def pack(column: Array, first: Array, end: Array) -> Array:
    """Words of columns, first lanes and end lanes, which broadcast."""
    return column << 2 * LANE_BITS | first << LANE_BITS | end


def unpack(info, lane_bits=LANE_BITS):
    """Column, first lane and end lane of words.

    The Triton kernels compile this very function, which therefore is not annotated, and is given
    the number of bits: they can't read a global integer.
    """
    first = (info >> lane_bits) & ((1 << lane_bits) - 1)
    return info >> 2 * lane_bits, first, info & ((1 << lane_bits) - 1)
