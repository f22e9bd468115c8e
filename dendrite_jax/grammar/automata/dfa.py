"""Deterministic finite automata over bytes."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from numpy.typing import NDArray

DEAD = -1
START = 0

BYTES = 256

# One edge: the inclusive byte range and the state it leads to.
Edge = tuple[int, int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Dfa:
    """A byte automaton whose equal byte columns are stored once.

    Attributes:
        table: i32[states, classes], the next state, DEAD where there is none; state 0 starts.
        byte_class: i32[256], the column of `table` for each byte.
        accept: bool[states].
    """

    table: NDArray[np.int32]
    byte_class: NDArray[np.int32]
    accept: NDArray[np.bool_]

    @classmethod
    def from_dense(cls, delta: NDArray[np.int32], accept: NDArray[np.bool_]) -> Dfa:
        """From a next-state table i32[states, 256]."""
        return cls(delta, np.arange(BYTES, dtype=np.int32), accept).with_merged_classes()

    @property
    def states(self) -> int:
        """The number of states."""
        return self.table.shape[0]

    @property
    def is_empty(self) -> bool:
        """Whether a minimal automaton accepts nothing."""
        return self.states == 0

    def dense(self) -> NDArray[np.int32]:
        """The next-state table i32[states, 256]."""
        return self.table[:, self.byte_class]

    def with_merged_classes(self) -> Dfa:
        """The same automaton with equal columns merged."""
        columns, inverse = unique_rows(np.ascontiguousarray(self.table.T))
        return Dfa(
            np.ascontiguousarray(columns.T), inverse[self.byte_class].astype(np.int32), self.accept
        )

    def matches(self, data: bytes) -> bool:
        """Whether the automaton accepts exactly `data`."""
        if self.is_empty:
            return False
        state = START
        for byte in data:
            state = int(self.table[state, self.byte_class[byte]])
            if state == DEAD:
                return False
        return bool(self.accept[state])

    @functools.cached_property
    def edges(self) -> list[list[Edge]]:
        """For each state its edges, ascending and disjoint."""
        dense = self.dense()
        changes = np.flatnonzero(np.diff(dense, axis=1, prepend=-2).ravel())
        state, low = np.divmod(changes, BYTES)
        high = np.append(changes[1:], dense.size) - changes + low - 1
        target = dense.ravel()[changes]
        result: list[list[Edge]] = [[] for _ in range(self.states)]
        kept = target != DEAD
        for source, *edge in zip(
            state[kept].tolist(),
            low[kept].tolist(),
            high[kept].tolist(),
            target[kept].tolist(),
            strict=True,
        ):
            result[source].append((edge[0], edge[1], edge[2]))
        return result


def unique_rows(rows: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Distinct rows in order of first appearance, and for each row its number among them."""
    numbers: dict[bytes, int] = {}
    firsts: list[int] = []
    inverse = np.empty(len(rows), np.int64)
    for index, row in enumerate(rows):
        number = numbers.setdefault(row.tobytes(), len(firsts))
        if number == len(firsts):
            firsts.append(index)
        inverse[index] = number
    return rows[firsts], inverse
