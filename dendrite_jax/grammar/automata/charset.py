"""Sets of Unicode code points, and the byte sequences that spell them in UTF-8."""

from __future__ import annotations

import functools
from collections.abc import Iterable

MAX_CODE_POINT = 0x10FFFF
FIRST_SURROGATE, LAST_SURROGATE = 0xD800, 0xDFFF

# Sorted, disjoint, non-adjacent inclusive ranges.
CharSet = tuple[tuple[int, int], ...]
# One inclusive byte range per byte of the encoding.
ByteRanges = tuple[tuple[int, int], ...]

# The largest code point of each encoded length.
_LENGTH_LIMITS = (0x7F, 0x7FF, 0xFFFF, MAX_CODE_POINT)


def normalise(ranges: Iterable[tuple[int, int]]) -> CharSet:
    """Sorts ranges and merges those that touch or overlap."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return tuple(merged)


def complement(chars: CharSet) -> CharSet:
    """All code points that are not in `chars`."""
    gaps = []
    start = 0
    for low, high in chars:
        if low > start:
            gaps.append((start, low - 1))
        start = high + 1
    if start <= MAX_CODE_POINT:
        gaps.append((start, MAX_CODE_POINT))
    return tuple(gaps)


ANY: CharSet = ((0, MAX_CODE_POINT),)
NOT_NEWLINE = complement(((10, 10),))
# ASCII, as JSON Schema's dialect has it.
DIGIT = normalise([(48, 57)])
WORD = normalise([(48, 57), (65, 90), (95, 95), (97, 122)])
# The Unicode property White_Space.
SPACE = normalise(
    [
        (0x9, 0xD),
        (0x20, 0x20),
        (0x85, 0x85),
        (0xA0, 0xA0),
        (0x1680, 0x1680),
        (0x2000, 0x200A),
        (0x2028, 0x2029),
        (0x202F, 0x202F),
        (0x205F, 0x205F),
        (0x3000, 0x3000),
    ]
)


@functools.lru_cache(maxsize=1024)
def utf8_sequences(chars: CharSet) -> tuple[ByteRanges, ...]:
    """Byte-range sequences whose union spells exactly `chars`, surrogates left out.

    At every position the ranges of two sequences with equal ranges before it are equal or
    disjoint, so the sequences form a trie.
    """
    sequences: list[ByteRanges] = []
    for low, high in chars:
        for part in ((low, min(high, FIRST_SURROGATE - 1)), (max(low, LAST_SURROGATE + 1), high)):
            if part[0] <= part[1]:
                sequences += _same_length_parts(*part)
    return tuple(sequences)


def _same_length_parts(low: int, high: int) -> list[ByteRanges]:
    parts: list[ByteRanges] = []
    for limit in _LENGTH_LIMITS:
        if low <= min(high, limit):
            parts += _tail_aligned(low, min(high, limit))
            low = limit + 1
    return parts


def _tail_aligned(low: int, high: int) -> list[ByteRanges]:
    """Splits a range of one encoded length until each byte's range is independent of the others."""
    first, last = chr(low).encode(), chr(high).encode()
    for position in range(1, len(first)):
        tail = (1 << 6 * position) - 1
        if low & ~tail == high & ~tail:
            continue
        if low & tail:
            return _tail_aligned(low, low | tail) + _tail_aligned((low | tail) + 1, high)
        if high & tail != tail:
            return _tail_aligned(low, (high & ~tail) - 1) + _tail_aligned(high & ~tail, high)
    return [tuple(zip(first, last, strict=True))]
