"""The game's state graph as flat arrays, and which of its states training may use.

The hold-out is by state, not by puzzle. Most 3-number states below a test puzzle also occur below
other puzzles; a model trained on those has memorised the values that the search asks for. So the
puzzles of the test and the development set, and every 3-number state below them, are kept out of
training altogether, whatever the target. States of two numbers stay: there are few, and their value
is one operation away.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.resources import files
from itertools import combinations
from typing import NamedTuple

import numpy as np

from dendrite_jax.tasks.game24.game.rules import (
    MAX_NUMERATOR,
    MAX_TARGET,
    State,
    all_puzzles,
    as_state,
    parse_puzzle,
)
from dendrite_jax.tasks.game24.game.values import NO_VALUE, ValueTable, value_table

STATE_WIDTH = 4
REACH_BYTES = MAX_TARGET // 8 + 1
DEV_PUZZLES = 60
_ID_BITS = 12


class StateGraph(NamedTuple):
    """States by descending size, puzzles first; the moves of state s are
    `first_move[s] : first_move[s + 1]`.
    """

    numbers: np.ndarray  # i16[states, 4], ascending value ids, NO_VALUE behind them
    size: np.ndarray  # i8[states]
    reach: np.ndarray  # u8[states, REACH_BYTES], bit T (little-endian) = target T can be made
    first_move: np.ndarray  # i32[states + 1]
    operand_a: np.ndarray  # i16[moves]
    operator: np.ndarray  # i8[moves], index into OPERATORS
    operand_b: np.ndarray  # i16[moves]
    result: np.ndarray  # i16[moves]
    next_state: np.ndarray  # i32[moves]

    def can_reach(self, target: int) -> np.ndarray:
        """bool[states]: whether the state can be turned into the target."""
        return (self.reach[:, target >> 3] >> (target & 7)) & 1 == 1

    def state(self, index: int) -> State:
        """The numbers of one state."""
        ids = self.numbers[index]
        return tuple(value_table().decode(i) for i in ids if i != NO_VALUE)

    def find(self, numbers: State) -> int:
        """The index of a state; ValueError when the graph lacks it."""
        ids = [value_table().encode(number) for number in numbers]
        row = np.array(ids + [NO_VALUE] * (STATE_WIDTH - len(ids)))
        found = np.flatnonzero((self.numbers == row).all(1))
        if not len(found):
            raise ValueError(f"state {' '.join(map(str, numbers))} is not in the graph")
        return int(found[0])


class Split(NamedTuple):
    """Indices and marks of the states for training, choosing and scoring."""

    test: np.ndarray  # i32[100], puzzles
    dev: np.ndarray  # i32[60], puzzles
    train: np.ndarray  # i32[n], the other puzzles, solvable or not
    held_out: np.ndarray  # bool[states]: test and dev puzzles and every 3-number state below them


def load_test_puzzles() -> list[State]:
    """The 100 puzzles ranked 901 to 1,000 of the Tree of Thoughts paper (Yao et al. 2023)."""
    path = files("dendrite_jax.tasks.game24").joinpath("data/test_puzzles.csv")
    with path.open() as lines:
        return [as_state(parse_puzzle(row["puzzle"])) for row in csv.DictReader(lines)]


def build_graph(puzzles: Sequence[State] | None = None) -> StateGraph:
    """All states and moves below some puzzles (default: all 1,820), in about a second."""
    values = value_table()
    roots = all_puzzles() if puzzles is None else puzzles
    level = np.array([[values.encode(number) for number in puzzle] for puzzle in roots], np.int16)
    levels, moves, base = [], [], 0
    while True:
        levels.append(level)
        source, a, operator, b, result, after = _expand(level, values)
        if level.shape[1] == 1:
            break
        level, position = _unique_states(after)
        end = base + len(levels[-1])
        moves.append((base + source, a, operator, b, result, end + position))
        base = end
    source, a, operator, b, result, next_state = (
        np.concatenate(column) for column in zip(*moves, strict=True)
    )
    numbers = np.concatenate(
        [
            np.pad(ids, ((0, 0), (0, STATE_WIDTH - ids.shape[1])), constant_values=NO_VALUE)
            for ids in levels
        ]
    )
    first_move = np.searchsorted(source, np.arange(len(numbers) + 1)).astype(np.int32)
    return StateGraph(
        numbers=numbers,
        size=(numbers != NO_VALUE).sum(1).astype(np.int8),
        reach=np.concatenate([reachable_targets(ids, values) for ids in levels]),
        first_move=first_move,
        operand_a=a.astype(np.int16),
        operator=operator.astype(np.int8),
        operand_b=b.astype(np.int16),
        result=result.astype(np.int16),
        next_state=next_state.astype(np.int32),
    )


def reachable_targets(states: np.ndarray, values: ValueTable) -> np.ndarray:
    """Which targets 0…100 some sequence of legal moves makes from each state.

    Args:
      states: i16[states, n], ascending value ids.
      values: the number table.

    Returns:
      u8[states, REACH_BYTES], bit T for target T, little-endian.
    """
    if states.shape[1] == 1:
        value = states[:, 0]
        whole = (values.denominator[value] == 1) & (values.numerator[value] <= MAX_TARGET)
        bits = np.zeros((len(states), REACH_BYTES * 8), np.uint8)
        bits[np.flatnonzero(whole), values.numerator[value[whole]]] = 1
        return np.packbits(bits, axis=1, bitorder="little")
    source, *_, after = _expand(states, values)
    children, position = _unique_states(after)
    reach = np.zeros((len(states), REACH_BYTES), np.uint8)
    starts = np.searchsorted(source, np.arange(len(states)))
    has_moves = np.append(starts[1:], len(source)) > starts
    below = reachable_targets(children, values)[position]
    reach[has_moves] = np.bitwise_or.reduceat(below, starts[has_moves], axis=0)
    return reach


def split_states(graph: StateGraph, seed: int = 0) -> Split:
    """The fixed test set, a seeded development set of 60 other puzzles solvable for 24, the rest.

    Args:
      graph: the graph over all puzzles.
      seed: chooses the development puzzles.
    """
    puzzles = np.flatnonzero(graph.size == STATE_WIDTH)
    by_numbers = {graph.state(int(index)): index for index in puzzles}
    test = np.array([by_numbers[puzzle] for puzzle in load_test_puzzles()])
    others = np.setdiff1d(puzzles[graph.can_reach(24)[puzzles]], test)
    dev = np.sort(np.random.default_rng(seed).choice(others, DEV_PUZZLES, replace=False))
    held_out = np.zeros(len(graph.size), bool)
    for puzzle in np.concatenate([test, dev]):
        held_out[puzzle] = True
        held_out[graph.next_state[graph.first_move[puzzle] : graph.first_move[puzzle + 1]]] = True
    return Split(test, dev, puzzles[~held_out[puzzles]], held_out)


def add_wide_states(
    graph: StateGraph, split: Split, count: int, seed: int = 0
) -> tuple[StateGraph, Split]:
    """Appends 3-number states without moves, to train values on more than the game's own states.

    Two numbers are whole and up to 50, the third is a whole number up to 199 or a number that a
    first step of the game leaves. No state of the game is among them, so no held-out one.

    Args:
      graph: the graph over all puzzles.
      split: its split.
      count: how many states are drawn; doubles and states of the game are dropped.
      seed: of the draw.
    """
    values, rng = value_table(), np.random.default_rng(seed)
    whole = values.id_of[:, 1]
    first_step = graph.result[: graph.first_move[np.searchsorted(-graph.size, -3)]]
    third = np.where(
        rng.random(count) < 0.5,
        whole[rng.integers(0, MAX_NUMERATOR + 1, count)],
        rng.choice(first_step, count),
    )
    pair = whole[rng.integers(0, 51, (count, 2))]
    states, _ = _unique_states(np.sort(np.column_stack([pair, third]), axis=1))
    states = states[~np.isin(_keys(states), _keys(graph.numbers[graph.size == 3][:, :3]))]
    rows = np.pad(states, ((0, 0), (0, 1)), constant_values=NO_VALUE)
    wide = graph._replace(
        numbers=np.concatenate([graph.numbers, rows]),
        size=np.concatenate([graph.size, np.full(len(rows), 3, np.int8)]),
        reach=np.concatenate([graph.reach, reachable_targets(states, values)]),
        first_move=np.pad(graph.first_move, (0, len(rows)), mode="edge"),
    )
    return wide, split._replace(held_out=np.pad(split.held_out, (0, len(rows))))


def _expand(states: np.ndarray, values: ValueTable) -> tuple[np.ndarray, ...]:
    """Every distinct legal move of each state, sorted by state.

    Returns:
      (source, a, operator, b, result), each i64[moves], and the next states i16[moves, n - 1].
    """
    size = states.shape[1]
    columns = []
    for i, j in combinations(range(size), 2):
        low, high = states[:, i], states[:, j]
        rest = np.delete(states, (i, j), axis=1)
        for code, a, b in [*((o, high, low) for o in range(4)), (3, low, high)]:
            result = values.result[code, a, b]
            source = np.flatnonzero(result != NO_VALUE)
            after = np.sort(np.column_stack([rest, result])[source], axis=1)
            operators = np.full(len(source), code)
            columns.append((source, a[source], operators, b[source], result[source], after))
    if not columns:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, nothing, nothing, nothing, np.zeros((0, size - 1), np.int16)
    source, a, operator, b, result, after = (
        np.concatenate(column) for column in zip(*columns, strict=True)
    )
    move_key = ((source.astype(np.int64) << _ID_BITS | a) << 2 | operator) << _ID_BITS | b
    _, first = np.unique(move_key, return_index=True)
    return source[first], a[first], operator[first], b[first], result[first], after[first]


def _unique_states(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows of i16[n, k] and, per row, the index of its distinct row."""
    _, first, position = np.unique(_keys(states), return_index=True, return_inverse=True)
    return states[first], position


def _keys(states: np.ndarray) -> np.ndarray:
    """One i64 a row of value ids, equal for equal rows."""
    key = np.zeros(len(states), np.int64)
    for column in states.T:
        key = key << _ID_BITS | column
    return key
