"""Nondeterministic byte automata, built from syntax trees and made deterministic.

Thompson's construction over UTF-8 bytes and the subset construction.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dendrite_jax.grammar.automata.charset import ByteRanges, CharSet, utf8_sequences
from dendrite_jax.grammar.automata.dfa import BYTES, DEAD, START, Dfa, Edge
from dendrite_jax.grammar.automata.regex_ast import Anchor, Chars, Concat, Node, Repeat
from dendrite_jax.grammar.errors import TooManyStatesError

DEFAULT_MAX_STATES = 50_000
# Nondeterministic states cost some 100 bytes each; this many are a mistake in the grammar.
_NFA_STATES_PER_DFA_STATE = 20
# Making one deterministic state of a real schema reads some hundreds of other states. Repetitions
# of what may be empty, such as (a?){4000}, need millions of times more, and minutes.
_WORK_PER_DFA_STATE = 1000
# Following an empty move takes longer, and what it leads to is kept in memory.
_WORK_OF_REACHING = 10


class Nfa:
    """A byte automaton under construction.

    Fragments are appended forwards: every method takes the state to go on from and returns the
    state that is reached. A state's own edges never overlap; alternatives meet by empty moves.
    """

    def __init__(self, max_states: int = DEFAULT_MAX_STATES) -> None:
        self.max_states = max_states
        self.edges: list[list[Edge]] = []
        self.empty_moves: list[list[int]] = []
        # Moves that are open only before the first byte, and only after the last.
        self.start_moves: dict[int, list[int]] = {}
        self.end_moves: dict[int, list[int]] = {}

    def state(self) -> int:
        """A new state without edges.

        Raises:
            TooManyStatesError: the grammar is far over its budget.
        """
        if len(self.edges) >= _NFA_STATES_PER_DFA_STATE * self.max_states:
            raise TooManyStatesError(
                f"expands to more than {len(self.edges)} nondeterministic states; "
                f"max_states is {self.max_states}"
            )
        self.edges.append([])
        self.empty_moves.append([])
        return len(self.edges) - 1

    def move(self, source: int, target: int) -> None:
        """Lets `source` become `target` without reading anything."""
        self.empty_moves[source].append(target)

    def append(self, node: Node, source: int) -> int:
        """Appends a syntax tree."""
        if isinstance(node, Chars):
            return self._append_chars(node.chars, source)
        if isinstance(node, Concat):
            for part in node.parts:
                source = self.append(part, source)
            return source
        if isinstance(node, Repeat):
            return self._append_repeat(node, source)
        if isinstance(node, Anchor):
            moves = self.start_moves if node is Anchor.START else self.end_moves
            target = self.state()
            moves.setdefault(source, []).append(target)
            return target
        target = self.state()
        for option in node.options:
            self.move(self.append(option, self._fork(source)), target)
        return target

    def append_dfa(self, dfa: Dfa, source: int) -> int:
        """Appends a copy of a deterministic automaton; a dead end when it accepts nothing."""
        target = self.state()
        if dfa.is_empty:
            return target
        offset = len(self.edges)
        for edges, accepts in zip(dfa.edges, dfa.accept.tolist(), strict=True):
            copy = self.state()
            self.edges[copy] = [(low, high, offset + to) for low, high, to in edges]
            if accepts:
                self.move(copy, target)
        self.move(source, offset + START)
        return target

    def append_bytes(self, data: bytes, source: int) -> int:
        """Appends exactly these bytes."""
        source = self._fork(source)
        for byte in data:
            target = self.state()
            self.edges[source].append((byte, byte, target))
            source = target
        return source

    def _fork(self, source: int) -> int:
        target = self.state()
        self.move(source, target)
        return target

    def _append_repeat(self, node: Repeat, source: int) -> int:
        for _ in range(node.low):
            before, source = source, self.append(node.body, source)
            if source == before:  # an empty body, of which more copies add nothing
                return source
        target = self.state()
        if node.high is None:
            loop = self._fork(source)
            self.move(self.append(node.body, loop), loop)
            self.move(loop, target)
            return target
        self.move(source, target)
        for _ in range(node.high - node.low):
            source = self.append(node.body, self._fork(source))
            self.move(source, target)
        return target

    def _append_chars(self, chars: CharSet, source: int) -> int:
        target = self.state()
        tails: dict[ByteRanges, int] = {(): target}
        self._append_sequences(self._fork(source), utf8_sequences(chars), tails)
        return target

    def _append_sequences(
        self, source: int, sequences: tuple[ByteRanges, ...], tails: dict[ByteRanges, int]
    ) -> None:
        """Adds a trie of byte sequences; single tails are shared through `tails`."""
        by_head: dict[tuple[int, int], list[ByteRanges]] = {}
        for sequence in sequences:
            by_head.setdefault(sequence[0], []).append(sequence[1:])
        for (low, high), rests in by_head.items():
            shared = tails.get(rests[0]) if len(rests) == 1 else None
            if shared is None:
                shared = self.state()
                if len(rests) == 1:
                    tails[rests[0]] = shared
                self._append_sequences(shared, tuple(rests), tails)
            self.edges[source].append((low, high, shared))

    def determinise(self, start: int, final: int) -> Dfa:
        """The subset automaton; all of its states are reachable, not all need reach acceptance.

        Raises:
            TooManyStatesError: more than `max_states` states, or far more work than those take.
        """
        return _SubsetConstruction(self, start, final).run()


class _SubsetConstruction:
    def __init__(self, nfa: Nfa, start: int, final: int) -> None:
        self.nfa = nfa
        self.start = start
        self.final = final
        byte_class = _byte_classes(nfa)
        self.class_of: list[int] = byte_class.tolist()
        self.classes = self.class_of[-1] + 1
        self.byte_class = byte_class
        self.closures: dict[int, frozenset[int]] = {}
        self.rows: dict[int, list[int]] = {}
        self.numbers: dict[frozenset[int], int] = {}
        self.subsets: list[frozenset[int]] = []
        self.work_left = _WORK_PER_DFA_STATE * nfa.max_states

    def run(self) -> Dfa:
        nfa = self.nfa
        before_first = self._reach(self.start, nfa.start_moves)
        self._number(self._core(before_first))
        ending = self._states_that_may_end()
        accept = [not ending.isdisjoint(before_first) or self._accepts_empty()]
        table: list[list[int]] = []
        while len(table) < len(self.subsets):
            table.append(self._targets(self.subsets[len(table)]))
        accept += [not ending.isdisjoint(subset) for subset in self.subsets[1:]]
        return Dfa(np.array(table, np.int32), self.byte_class, np.array(accept, bool))

    def _reach(self, state: int, *extra_moves: dict[int, list[int]]) -> set[int]:
        seen = {state}
        stack = [state]
        while stack:
            source = stack.pop()
            targets = self.nfa.empty_moves[source]
            for moves in extra_moves:
                targets = targets + moves.get(source, [])
            fresh = [target for target in targets if target not in seen]
            seen.update(fresh)
            stack += fresh
        return seen

    def _accepts_empty(self) -> bool:
        nfa = self.nfa
        return self.final in self._reach(self.start, nfa.start_moves, nfa.end_moves)

    def _core(self, states: set[int]) -> frozenset[int]:
        """The members that matter: those with edges, the final one, and those an end opens."""
        nfa = self.nfa
        return frozenset(
            state
            for state in states
            if nfa.edges[state] or state == self.final or state in nfa.end_moves
        )

    def _states_that_may_end(self) -> set[int]:
        return {self.final} | {
            state
            for state in self.nfa.end_moves
            if self.final in self._reach(state, self.nfa.end_moves)
        }

    def _closure(self, state: int) -> frozenset[int]:
        closure = self.closures.get(state)
        if closure is None:
            reached = self._reach(state)
            self._spend(_WORK_OF_REACHING * len(reached))
            closure = self.closures[state] = self._core(reached)
        return closure

    def _spend(self, work: int) -> None:
        self.work_left -= work
        if self.work_left < 0:
            raise TooManyStatesError(
                f"its parts overlap too much for {self.nfa.max_states} automaton states "
                "(max_states)"
            )

    def _number(self, subset: frozenset[int]) -> int:
        number = self.numbers.setdefault(subset, len(self.subsets))
        if number == len(self.subsets):
            if number >= self.nfa.max_states:
                raise TooManyStatesError(
                    f"needs more than {self.nfa.max_states} automaton states (max_states)"
                )
            self.subsets.append(subset)
        return number

    def _row(self, state: int) -> list[int]:
        """For each byte class the state that `state` alone goes to."""
        row = self.rows.get(state)
        if row is None:
            row = [DEAD] * self.classes
            for low, high, target in self.nfa.edges[state]:
                first, last = self.class_of[low], self.class_of[high]
                row[first : last + 1] = [target] * (last + 1 - first)
            self.rows[state] = row
        return row

    def _targets(self, subset: frozenset[int]) -> list[int]:
        rows = [self._row(state) for state in subset if self.nfa.edges[state]]
        self._spend(len(rows) * self.classes)
        if not rows:
            return [DEAD] * self.classes
        if len(rows) == 1:
            after = {state: self._number_after((state,)) for state in set(rows[0])}
            return [after[state] for state in rows[0]]
        columns = list(zip(*rows, strict=True))
        after_column = {column: self._number_after(column) for column in set(columns)}
        return [after_column[column] for column in columns]

    def _number_after(self, states: tuple[int, ...]) -> int:
        """The subset that these states together go on as."""
        closures = {self._closure(state) for state in states if state != DEAD}
        self._spend(sum(map(len, closures)))
        return self._number(frozenset().union(*closures)) if closures else DEAD


def _byte_classes(nfa: Nfa) -> NDArray[np.int32]:
    """Numbers the coarsest byte intervals that no edge divides."""
    ranges = {edge[:2] for edges in nfa.edges for edge in edges}
    boundary = np.zeros(BYTES + 1, np.int32)
    for low, high in ranges:
        boundary[low] = boundary[high + 1] = 1
    boundary[0] = 0
    return np.cumsum(boundary[:BYTES], dtype=np.int32)
