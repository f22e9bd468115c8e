"""Operations on languages: intersection, difference, JSON quoting."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dendrite_jax.grammar.automata.dfa import BYTES, DEAD, START, Dfa
from dendrite_jax.grammar.automata.minimise import minimise
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES, Nfa
from dendrite_jax.grammar.automata.regex_ast import Node
from dendrite_jax.grammar.errors import TooManyStatesError

_QUOTE, _BACKSLASH, _DELETE = ord('"'), ord("\\"), 0x7F
# The letter after a backslash, for each byte that has a short escape.
_SHORT_ESCAPES = {8: "b", 12: "f", 10: "n", 13: "r", 9: "t", _QUOTE: '"', _BACKSLASH: "\\"}
_ESCAPED_BYTES = [*range(0x20), _QUOTE, _BACKSLASH, _DELETE]
DEFAULT_ESCAPES = 'nrbtf\\"u'


def regex_dfa(node: Node, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The minimal automaton of a syntax tree."""
    nfa = Nfa(max_states)
    start = nfa.state()
    return minimise(nfa.determinise(start, nfa.append(node, start)))


def intersection(left: Dfa, right: Dfa, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The texts that both accept."""
    return _product(left, right, np.logical_and, False, max_states)


def difference(left: Dfa, right: Dfa, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The texts that `left` accepts and `right` does not."""
    return _product(left, right, lambda a, b: a & ~b, True, max_states)


def texts_dfa(texts: list[bytes], max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The automaton that accepts exactly these byte strings."""
    nfa = Nfa(max_states)
    start, end = nfa.state(), nfa.state()
    for text in texts:
        nfa.move(nfa.append_bytes(text, start), end)
    return minimise(nfa.determinise(start, end))


def _product(
    left: Dfa,
    right: Dfa,
    accept: Callable[[NDArray[np.bool_], NDArray[np.bool_]], NDArray[np.bool_]],
    right_may_fail: bool,
    max_states: int,
) -> Dfa:
    """Runs both automata at once; a pair is dead when `left` is, or `right` where it may not."""
    if left.is_empty or (right.is_empty and not right_may_fail):
        return Dfa(left.table[:0], left.byte_class, left.accept[:0])
    if right.is_empty:
        return left
    classes, byte_class = np.unique(
        left.byte_class.astype(np.int64) * BYTES + right.byte_class, return_inverse=True
    )
    # The dead state of `right` is its last, so that a pair is one number.
    width = right.states + 1
    left_table = left.table[:, classes // BYTES].astype(np.int64)
    right_table = np.vstack([right.table, np.full_like(right.table[:1], DEAD)])[:, classes % BYTES]
    right_table = np.where(right_table == DEAD, right.states, right_table)

    pairs = np.zeros(1, np.int64)
    numbers: dict[int, int] = {0: 0}
    rows = []
    frontier = pairs
    while len(frontier):
        a, b = left_table[frontier // width], right_table[frontier % width]
        dead = a == DEAD if right_may_fail else (a == DEAD) | (b == right.states)
        successor = np.where(dead, DEAD, a * width + b)
        rows.append(successor)
        fresh = [
            pair for pair in np.unique(successor).tolist() if pair != DEAD and pair not in numbers
        ]
        for pair in fresh:
            numbers[pair] = len(numbers)
        if len(numbers) > max_states:
            raise TooManyStatesError(f"needs more than {max_states} automaton states (max_states)")
        frontier = np.array(fresh, np.int64)
    codes = np.array(list(numbers), np.int64)
    order = np.argsort(codes)
    successor = np.concatenate(rows)
    found = order[np.searchsorted(codes[order], np.maximum(successor, 0))]
    table = np.where(successor == DEAD, DEAD, found).astype(np.int32)
    ends = accept(left.accept[codes // width], np.append(right.accept, False)[codes % width])
    return minimise(Dfa(table, byte_class.reshape(-1).astype(np.int32), ends))


def json_quoted(raw: Dfa, escapes: str = DEFAULT_ESCAPES) -> Dfa:
    """The JSON string literals, quotation marks included, of the texts that `raw` accepts.

    A printable character stands for itself; control characters, `"`, `\\` and DEL are escaped,
    control characters and DEL also as `\\u00XX`. These are llguidance's spellings.

    Args:
        raw: an automaton over UTF-8.
        escapes: the letters that may follow a backslash.
    """
    if raw.is_empty:
        return raw
    dense = raw.dense()
    plain = dense.copy()
    plain[:, _ESCAPED_BYTES] = DEAD
    escaped = np.flatnonzero((dense[:, _ESCAPED_BYTES] != DEAD).any(axis=1))

    # Rows: the raw states, one block of rows per step of an escape, then the two quotes.
    steps = ("\\", "\\u", "\\u0", "\\u00", "\\u000", "\\u001", "\\u007")
    row_of = {step: raw.states + i * len(escaped) for i, step in enumerate(steps)}
    opening = raw.states + len(steps) * len(escaped)
    closed = opening + 1
    table = np.full((closed + 1, BYTES), DEAD, np.int32)
    table[: raw.states] = plain
    table[: raw.states, _QUOTE] = np.where(raw.accept, closed, DEAD)
    table[opening, _QUOTE] = START
    index = np.arange(len(escaped), dtype=np.int32)

    def rows(step: str) -> slice:
        return slice(row_of[step], row_of[step] + len(escaped))

    table[escaped, _BACKSLASH] = row_of["\\"] + index
    for byte, letter in _SHORT_ESCAPES.items():
        if letter in escapes:
            table[rows("\\"), ord(letter)] = dense[escaped, byte]
    if "u" in escapes:
        for step in steps[1:]:
            table[rows(step[:-1]), ord(step[-1])] = row_of[step] + index
        for byte in [*range(0x20), _DELETE]:
            prefix, digit = "\\u00" + f"{byte:02x}"[0], f"{byte:02x}"[1]
            for spelling in {digit, digit.upper()}:
                table[rows(prefix), ord(spelling)] = dense[escaped, byte]
    accept = np.zeros(closed + 1, bool)
    accept[closed] = True
    return minimise(_restart(table, accept, opening))


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
