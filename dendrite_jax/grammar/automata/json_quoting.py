"""The JSON string literals of a set of texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dendrite_jax.grammar.automata.dfa import BYTES, DEAD, START, Dfa, unique_rows
from dendrite_jax.grammar.automata.minimise import minimise

_QUOTE, _BACKSLASH, _DELETE = ord('"'), ord("\\"), 0x7F
# The letter after a backslash, for each byte that has a short escape.
_SHORT_ESCAPES = {8: "b", 12: "f", 10: "n", 13: "r", 9: "t", _QUOTE: '"', _BACKSLASH: "\\"}
_NEVER_PLAIN = [*range(0x20), _QUOTE, _BACKSLASH]
DEFAULT_ESCAPES = 'nrbtf\\"u'

_HEX = np.arange(16)
_LOWER = np.array([ord(digit) for digit in "0123456789abcdef"])
_UPPER = np.array([ord(digit) for digit in "0123456789ABCDEF"])


def json_quoted(raw: Dfa, escapes: str = DEFAULT_ESCAPES) -> Dfa:
    """The JSON string literals, quotation marks included, of the texts that `raw` accepts.

    A character stands for itself, but control characters, `"` and `\\` have their short escapes;
    control characters and all beyond ASCII (as surrogates where they need two), and DEL, may also
    be written as `\\uXXXX`. Printable ASCII characters have no such needless escapes.

    Args:
        raw: an automaton over UTF-8.
        escapes: the letters that may follow a backslash.
    """
    if raw.is_empty:
        return raw
    dense = raw.dense()
    rows = _Rows(raw.states)
    backslash = np.full((raw.states, BYTES), DEAD, np.int32)
    for byte, letter in _SHORT_ESCAPES.items():
        if letter in escapes:
            backslash[:, ord(letter)] = dense[:, byte]
    if "u" in escapes:
        backslash[:, ord("u")] = _after_u(dense, rows)
    plain = dense.copy()
    plain[:, _NEVER_PLAIN] = DEAD
    plain[:, _BACKSLASH] = rows.add(backslash)

    opening, closed = rows.count, rows.count + 1
    quotes = np.full((2, BYTES), DEAD, np.int32)
    quotes[0, _QUOTE] = START
    plain[:, _QUOTE] = np.where(raw.accept, closed, DEAD)
    accept = np.zeros(closed + 1, bool)
    accept[closed] = True
    return minimise(_restart(np.concatenate([plain, *rows.blocks, quotes]), accept, opening))


class _Rows:
    """Rows of a next-state table that come after its first `count`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.blocks: list[NDArray[np.int32]] = []

    def add(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """Adds i32[..., 256] rows, equal ones once; i32[...] their numbers, DEAD for dead ends."""
        flat = rows.reshape(-1, rows.shape[-1])
        numbers = np.full(len(flat), DEAD, np.int32)
        live = np.flatnonzero((flat != DEAD).any(axis=1))
        if len(live):
            distinct, inverse = unique_rows(np.ascontiguousarray(flat[live]))
            numbers[live] = self.count + inverse
            self.blocks.append(distinct if rows.shape[-1] == BYTES else _on_hex_digits(distinct))
            self.count += len(distinct)
        return numbers.reshape(rows.shape[:-1])

    def add_hex(self, rows: NDArray[np.int32]) -> NDArray[np.int32]:
        """Adds rows i32[n, ..., 16] over the hexadecimal digits; i32[n + 1, ...], see `add`.

        The last entry is a dead end, so that DEAD as an index leads to DEAD.
        """
        numbers = self.add(rows)
        return np.concatenate([numbers, np.full_like(numbers[:1], DEAD)])

    def add_text(self, text: str, targets: NDArray[np.int32]) -> NDArray[np.int32]:
        """Adds rows that read `text` (its hexadecimal letters in either case) before i32[...]."""
        distinct, inverse = np.unique(targets, return_inverse=True)
        numbers = distinct.astype(np.int32)
        for char in reversed(text):
            table = np.full((len(numbers), BYTES), DEAD, np.int32)
            for spelling in {char, char.upper() if char != "u" else char}:
                table[:, ord(spelling)] = numbers
            numbers = self.add(table)
        return numbers[inverse].reshape(targets.shape)


def _on_hex_digits(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    table = np.full((len(rows), BYTES), DEAD, np.int32)
    table[:, _LOWER] = table[:, _UPPER] = rows
    return table


def _after_u(dense: NDArray[np.int32], rows: _Rows) -> NDArray[np.int32]:
    """i32[states]: the row after \\u, from each state of an automaton over UTF-8.

    Four hexadecimal digits hold sixteen bits, which UTF-8 spreads over bytes of six bits: digits
    are read on the left and bytes on the right as soon as their bits are known.
    """
    to = np.concatenate([dense, np.full_like(dense[:1], DEAD)])
    # last[q, p]: a digit is to come; its bits after the bits p make the last byte.
    last = rows.add_hex(dense[:, 0x80 + 16 * np.arange(4)[:, None] + _HEX])
    high, low = _HEX >> 2, _HEX & 3
    # middle[q, n]: two digits are to come, for the bits of a last but one byte after n, and a last.
    middle = rows.add_hex(last[dense[:, 0x80 + 4 * _HEX[:, None] + high], low])

    # 0000 … 07FF are spelled in at most two bytes.
    below_800 = last[dense[:, 0xC0 + 4 * _HEX[:8, None] + high], low]
    control = rows.add(dense[:, 16 * np.arange(2)[:, None] + _HEX])
    delete = np.full((len(dense), 16), DEAD, np.int32)
    delete[:, 15] = dense[:, _DELETE]
    below_800[:, 0, :8] = DEAD
    below_800[:, 0, :2] = control
    below_800[:, 0, 7] = rows.add(delete)

    first = np.full((len(dense), 16, 16), DEAD, np.int32)
    first[:] = middle[dense[:, 0xE0 + _HEX]]
    first[:, 0, :8] = rows.add(below_800)
    first[:, 0xD, 8:12] = _high_surrogates(to, middle, rows)
    first[:, 0xD, 12:] = DEAD
    return rows.add(rows.add(first))


def _high_surrogates(
    to: NDArray[np.int32], middle: NDArray[np.int32], rows: _Rows
) -> NDArray[np.int32]:
    """i32[states, 4]: the rows after \\ud8 … \\udb, for characters of four bytes."""
    dense = to[:-1]
    # low[q, p]: the low surrogate is to come, the bits p are left of the high one.
    after_d = np.full((len(dense), 4, 16), DEAD, np.int32)
    after_d[:, :, 12:] = middle[:-1].reshape(-1, 4, 4)
    low = rows.add_text("\\ud", rows.add(after_d))
    low = np.concatenate([low, np.full_like(low[:1], DEAD)])
    # third[q, n]: the high surrogate's last digit is to come, for a second byte after bits n.
    third = rows.add_hex(low[dense[:, 0x80 + 4 * _HEX[:, None] + (_HEX >> 2)], _HEX & 3])
    # The first bits of a high surrogate are those of the code point less 0x10000.
    plane = 1 + 4 * np.arange(4)[:, None] + (_HEX >> 2)
    return rows.add(third[dense[:, 0xF0 + (plane >> 2)], 4 * (plane & 3) + (_HEX & 3)])


def _restart(table: NDArray[np.int32], accept: NDArray[np.bool_], start: int) -> Dfa:
    """The reachable part of a dense table that starts elsewhere, breadth first."""
    number = np.full(len(table) + 1, DEAD, np.int32)
    number[start] = 0
    order = [np.array([start])]
    count = 1
    while len(order[-1]):
        targets = np.unique(table[order[-1]])
        fresh = targets[(targets != DEAD) & (number[targets] == DEAD)]
        number[fresh] = count + np.arange(len(fresh))
        count += len(fresh)
        order.append(fresh)
    states = np.concatenate(order)
    successor = table[states]
    return Dfa.from_dense(
        np.where(successor == DEAD, DEAD, number[successor]).astype(np.int32), accept[states]
    )
