"""The state graph against the exact rules and a brute-force solver; the hold-out."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import permutations

import numpy as np
import pytest

from dendrite_jax.tasks.game24.game.graph import (
    DEV_PUZZLES,
    Split,
    StateGraph,
    load_test_puzzles,
    split_states,
)
from dendrite_jax.tasks.game24.game.rules import (
    OPERATORS,
    all_puzzles,
    as_state,
    legal_moves,
    reachable_values,
)
from dendrite_jax.tasks.game24.game.values import value_table


def solvable_by_brute_force(target: int) -> np.ndarray:
    """bool[puzzles]: some expression of the four numbers has the value, by floating point.

    Every order, operator and bracketing, with negative numbers and any fraction in between.
    """
    numbers = np.array(all_puzzles(), float)
    operations = (np.add, np.subtract, np.multiply, np.divide)
    found = np.zeros(len(numbers), bool)
    with np.errstate(all="ignore"):
        for order in permutations(range(4)):
            a, b, c, d = numbers[:, order].T
            for f in operations:
                ab = f(a, b)
                for g in operations:
                    # (a f b) g c and c g (a f b) with d, and (a f b) with (c g d).
                    three = (g(ab, c), g(c, ab))
                    cd = g(c, d)
                    for h in operations:
                        for value in (*(h(x, d) for x in three), *(h(d, x) for x in three)):
                            found |= abs(value - target) < 1e-9
                        found |= abs(h(ab, cd) - target) < 1e-9
    return found


def test_sizes(graph: StateGraph) -> None:
    assert len(graph.size) == 46_974
    assert len(graph.next_state) == 295_528
    assert (graph.size == 4).sum() == 1820


def test_solvable_puzzles_are_those_of_an_unrestricted_solver(graph: StateGraph) -> None:
    """So the caps and the want of negative numbers lose no solution for 24."""
    solvable = graph.can_reach(24)[:1820]
    assert solvable.sum() == 1362
    assert (solvable == solvable_by_brute_force(24)).all()


def test_moves_are_those_of_the_rules(graph: StateGraph) -> None:
    values = value_table()
    for index in random.Random(5).sample(range(len(graph.size)), 1500):
        state = graph.state(index)
        listed = set()
        for move in range(graph.first_move[index], graph.first_move[index + 1]):
            a, b, result = (
                values.decode(column[move])
                for column in (graph.operand_a, graph.operand_b, graph.result)
            )
            operator = OPERATORS[graph.operator[move]]
            listed.add((a, operator, b, result, graph.state(int(graph.next_state[move]))))
        assert listed == set(legal_moves(state))


def test_reachable_targets_are_those_of_the_rules(graph: StateGraph) -> None:
    reach = np.stack([graph.can_reach(target) for target in range(1, 101)], axis=1)
    for index in random.Random(6).sample(range(len(graph.size)), 300):
        expected = {int(v) for v in reachable_values(graph.state(index)) if v.denominator == 1}
        assert set(np.flatnonzero(reach[index]) + 1) == expected & set(range(1, 101))


def test_states_are_found(graph: StateGraph) -> None:
    for index in random.Random(7).sample(range(len(graph.size)), 50):
        assert graph.find(graph.state(index)) == index
    with pytest.raises(ValueError, match="state 1 1 199 is not in the graph"):
        graph.find(as_state([1, 1, 199]))


def test_test_set_is_the_papers(graph: StateGraph, split: Split) -> None:
    puzzles = load_test_puzzles()
    assert len(set(puzzles)) == 100
    assert puzzles[0] == as_state([4, 5, 6, 10])
    assert [graph.state(int(index)) for index in split.test] == puzzles
    assert graph.can_reach(24)[split.test].all()


def test_training_never_starts_or_passes_a_state_below_a_held_out_puzzle(
    graph: StateGraph, split: Split
) -> None:
    assert len(split.dev) == DEV_PUZZLES
    assert graph.can_reach(24)[split.dev].all()
    parts = [set(part.tolist()) for part in (split.test, split.dev, split.train)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 1820
    held_out = {graph.state(int(index)) for index in (*split.test, *split.dev)}
    held_out |= {move.state for puzzle in held_out for move in legal_moves(puzzle)}
    assert {graph.state(int(index)) for index in np.flatnonzero(split.held_out)} == held_out
    assert not split.held_out[split.train].any()
    assert not split.held_out[graph.size < 3].any()


def test_split_depends_on_its_seed_only(graph: StateGraph, split: Split) -> None:
    same, other = split_states(graph), split_states(graph, seed=1)
    assert (same.dev == split.dev).all()
    assert (other.dev != split.dev).any()
    assert (other.test == split.test).all()


def test_wide_states_are_new_and_have_exact_values(
    graph: StateGraph, wide: tuple[StateGraph, Split]
) -> None:
    larger, marks = wide
    added = range(len(graph.size), len(larger.size))
    assert len(added) > 20_000
    game = {graph.state(int(index)) for index in np.flatnonzero(graph.size == 3)}
    states = [larger.state(index) for index in random.Random(8).sample(added, 300)]
    assert not set(states) & game
    assert not marks.held_out[len(graph.size) :].any()
    for state in states[:60]:
        index = larger.find(state)
        for target in (1, 24, 100):
            expected = Fraction(target) in reachable_values(state)
            assert larger.can_reach(target)[index] == expected
