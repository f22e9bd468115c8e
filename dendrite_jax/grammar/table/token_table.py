"""From a byte automaton to a token automaton, by one walk over the vocabulary trie.

Two tokens that send every state to the same state share a class. The walk computes, per trie node,
the number of its transition function (a vector over states, stored once); a child's function is
its parent's followed by one byte's. A states × vocabulary table never exists.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from dendrite_jax.grammar.automata.dfa import BYTES, DEAD, START, Dfa, unique_rows
from dendrite_jax.grammar.automata.minimise import Predecessors, co_reachable
from dendrite_jax.grammar.errors import GrammarError, TooManyStatesError
from dendrite_jax.grammar.table.vocabulary import NO_NODE, VocabularyTrie

DEFAULT_MAX_BYTES = 512 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class TokenTable:
    """A token automaton on the host; state 0 starts, and every state can end and be reached.

    Attributes:
        next_state: i32[states, classes], DEAD where the token is not allowed.
        token_class: i32[vocabulary]; tokens without bytes have a class that no state allows.
        accept: bool[states], whether an end-of-sequence token is allowed.
    """

    next_state: NDArray[np.int32]
    token_class: NDArray[np.int32]
    accept: NDArray[np.bool_]


def build_token_table(
    dfa: Dfa,
    trie: VocabularyTrie,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> TokenTable:
    """Walks a minimal automaton over the vocabulary.

    Raises:
        GrammarError: the language is empty, or no sequence of tokens spells a text of it.
        TooManyStatesError: the transition functions need more than `max_bytes`.
    """
    if dfa.is_empty:
        raise GrammarError("the grammar accepts no text")
    functions = _TransitionFunctions(dfa, max_bytes)
    node_function = np.empty(trie.nodes, np.int32)
    node_function[0] = functions.identity
    for start, stop in zip(trie.level_start[1:-1], trie.level_start[2:], strict=True):
        level = slice(start, stop)
        node_function[level] = functions.extend(node_function[trie.parent[level]], trie.byte[level])
    token_function = np.where(
        trie.token_node == NO_NODE, functions.dead, node_function[trie.token_node]
    )
    used, token_class = np.unique(token_function, return_inverse=True)
    next_state = np.ascontiguousarray(functions.vectors[used].T).astype(np.int32)
    table = TokenTable(next_state, token_class.reshape(-1).astype(np.int32), dfa.accept)
    return table if _spells_every_edge(dfa, trie) else _pruned(table)


class _TransitionFunctions:
    """Interned functions states → states, and the memo of "function, then byte"."""

    def __init__(self, dfa: Dfa, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        small = dfa.states < np.iinfo(np.int16).max
        self.dtype = np.dtype(np.int16 if small else np.int32)
        self.byte_class = dfa.byte_class
        # One row per byte class, with a last entry so that DEAD stays DEAD.
        padded = np.vstack([dfa.table, np.full_like(dfa.table[:1], DEAD)])
        self.step = np.ascontiguousarray(padded.T).astype(self.dtype)
        self.vectors = np.empty((64, dfa.states), self.dtype)
        self.memo = np.full((64, dfa.table.shape[1]), DEAD, np.int32)
        self.numbers: dict[bytes, int] = {}
        self.identity = self._intern(np.arange(dfa.states, dtype=self.dtype))
        self.dead = self._intern(np.full(dfa.states, DEAD, self.dtype))
        self.memo[self.dead] = self.dead

    def extend(
        self, functions: NDArray[np.int32], edge_bytes: NDArray[np.uint8]
    ) -> NDArray[np.int32]:
        """The numbers of `functions[i]` followed by `edge_bytes[i]`."""
        classes = self.byte_class[edge_bytes]
        result = self.memo[functions, classes]
        unknown = np.flatnonzero(result == DEAD)
        if len(unknown):
            self._compute(functions[unknown], classes[unknown])
            result = self.memo[functions, classes]
        return result

    def _compute(self, functions: NDArray[np.int32], classes: NDArray[np.int32]) -> None:
        """Fills the memo for these pairs, one byte class at a time."""
        count = len(self.memo)
        pairs = np.unique(classes.astype(np.int64) * count + functions)
        pair_classes, pair_functions = np.divmod(pairs, count)
        present, starts = np.unique(pair_classes, return_index=True)
        groups = np.split(pair_functions, starts[1:])
        for byte_class, group in zip(present.tolist(), groups, strict=True):
            vectors = np.take(self.step[byte_class], self.vectors[group])
            self.memo[group, byte_class] = [self._intern(vector) for vector in vectors]

    def _intern(self, vector: NDArray[np.signedinteger]) -> int:
        number = self.numbers.setdefault(vector.tobytes(), len(self.numbers))
        if (number + 1) * vector.nbytes > self.max_bytes:
            raise TooManyStatesError(
                f"{vector.size} states × {number + 1} token classes are over "
                f"{self.max_bytes} bytes (max_bytes)"
            )
        if number == len(self.vectors):
            self.vectors = np.concatenate([self.vectors, np.empty_like(self.vectors)])
            self.memo = np.concatenate([self.memo, np.full_like(self.memo, DEAD)])
        self.vectors[number] = vector
        return number


def _spells_every_edge(dfa: Dfa, trie: VocabularyTrie) -> bool:
    """Whether each byte that the automaton reads is a token: then tokens go wherever bytes do."""
    first_level = slice(trie.level_start[1], trie.level_start[2])
    single = np.zeros(BYTES, bool)
    nodes = trie.token_node[trie.token_node >= first_level.start]
    single[trie.byte[nodes[nodes < first_level.stop]]] = True
    used = (dfa.table != DEAD).any(axis=0)[dfa.byte_class]
    return bool(single[used].all())


def _pruned(table: TokenTable) -> TokenTable:
    """Drops states that tokens do not reach or that tokens cannot end, and merges classes."""
    next_state = table.next_state
    live = co_reachable(Predecessors(_distinct_targets(next_state)), table.accept)
    if not live[START]:
        raise GrammarError("no sequence of this vocabulary's tokens spells a text of the grammar")
    next_state = np.where(live[next_state], next_state, DEAD)
    reached = np.zeros(len(next_state), bool)
    frontier = np.array([START])
    while len(frontier):
        reached[frontier] = True
        targets = np.unique(next_state[frontier])
        frontier = targets[(targets != DEAD) & ~reached[targets]]
    kept = np.flatnonzero(reached)
    number = np.full(len(next_state) + 1, DEAD, np.int32)
    number[kept] = np.arange(len(kept))
    columns, merged = unique_rows(np.ascontiguousarray(number[next_state[kept]].T))
    return TokenTable(
        np.ascontiguousarray(columns.T),
        merged[table.token_class].astype(np.int32),
        table.accept[kept],
    )


def _distinct_targets(next_state: NDArray[np.int32]) -> NDArray[np.int32]:
    """i32[states, most]: each state's different targets, filled up with DEAD."""
    targets = [np.unique(row) for row in next_state]
    result = np.full((len(next_state), max(map(len, targets))), DEAD, np.int32)
    for row, values in zip(result, targets, strict=True):
        row[: len(values)] = values
    return result
