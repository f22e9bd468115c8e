"""Minimal deterministic automata by partition refinement.

Moore's refinement, with Hopcroft's rule that the largest part of a split block keeps its number,
so that a round looks only at states whose successors moved (Hopcroft 1971).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dendrite_jax.grammar.automata.dfa import DEAD, START, Dfa


class Predecessors:
    """For each state the states with an edge into it."""

    def __init__(self, table: NDArray[np.int32]) -> None:
        source, column = np.nonzero(table != DEAD)
        target = table[source, column]
        edges = np.unique(target.astype(np.int64) * len(table) + source)
        self._sources = (edges % len(table)).astype(np.int32)
        self._starts = np.searchsorted(edges, np.arange(len(table) + 1) * len(table))

    def of(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        """The distinct predecessors of any of `states`, ascending."""
        starts = self._starts[states]
        counts = self._starts[states + 1] - starts
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.unique(self._sources[np.repeat(starts, counts) + offsets]).astype(np.int64)


def co_reachable(predecessors: Predecessors, accept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """bool[states]: the states from which an accepting one can be reached."""
    live = accept.copy()
    frontier = np.flatnonzero(accept)
    while len(frontier):
        sources = predecessors.of(frontier)
        frontier = sources[~live[sources]]
        live[frontier] = True
    return live


def minimise(dfa: Dfa) -> Dfa:
    """The smallest automaton of the same language; without states when the language is empty.

    All states of `dfa` must be reachable. States are numbered by their first member's number.
    """
    if dfa.is_empty:
        return dfa
    live = co_reachable(Predecessors(dfa.table), dfa.accept)
    if not live[START]:
        return Dfa(np.zeros((0, 1), np.int32), np.zeros(256, np.int32), np.zeros(0, bool))
    kept = np.flatnonzero(live)
    number = np.full(dfa.states + 1, DEAD, np.int32)
    number[kept] = np.arange(len(kept))
    trimmed = Dfa(number[dfa.table[kept]], dfa.byte_class, dfa.accept[kept]).with_merged_classes()

    block = _refine(trimmed)
    blocks, first = np.unique(block, return_index=True)
    order = np.argsort(first)
    renumber = np.full(int(blocks.max()) + 2, DEAD, np.int32)
    renumber[blocks[order]] = np.arange(len(blocks))
    representatives = first[order]
    successor = trimmed.table[representatives]
    table = np.where(successor == DEAD, DEAD, renumber[block[successor]]).astype(np.int32)
    return Dfa(table, trimmed.byte_class, trimmed.accept[representatives]).with_merged_classes()


def _refine(dfa: Dfa) -> NDArray[np.int64]:
    """i64[states]: the block of each state; states in one block accept the same continuations."""
    predecessors = Predecessors(dfa.table)
    # A last entry of -1 stands for the missing state, so that DEAD indexes it.
    block = np.append(dfa.accept.astype(np.int64), -1)
    sizes = {number: int(np.sum(block == number)) for number in (0, 1)}
    next_block = 2
    touched = np.arange(dfa.states)
    while len(touched):
        signatures = block[dfa.table[touched]]
        parts: dict[int, dict[bytes, list[int]]] = {}
        for state, own, signature in zip(
            touched.tolist(), block[touched].tolist(), signatures, strict=True
        ):
            parts.setdefault(own, {}).setdefault(signature.tobytes(), []).append(state)
        moved: list[int] = []
        for own, groups in parts.items():
            ranked = sorted(groups.values(), key=len)
            # A touched state's successors moved, so it differs from every untouched one.
            all_touched = sum(map(len, ranked)) == sizes[own]
            leaving = ranked[:-1] if all_touched else ranked
            for group in leaving:
                block[group] = next_block
                sizes[next_block] = len(group)
                sizes[own] -= len(group)
                next_block += 1
                moved += group
        touched = predecessors.of(np.array(moved, np.int64)) if moved else touched[:0]
    return block[:-1]
