"""Operations on languages: intersection and difference."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dendrite_jax.grammar.automata.dfa import BYTES, DEAD, Dfa
from dendrite_jax.grammar.automata.minimise import minimise
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES, Nfa
from dendrite_jax.grammar.automata.regex_ast import Node
from dendrite_jax.grammar.errors import TooManyStatesError


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
