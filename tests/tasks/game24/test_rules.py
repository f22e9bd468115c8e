"""The exact rules, against arithmetic that Python does itself."""

from __future__ import annotations

import random
import re
from fractions import Fraction

import pytest

from dendrite_jax.tasks.game24.game.rules import (
    PuzzleError,
    all_puzzles,
    apply_step,
    as_state,
    build_expression,
    check_target,
    format_prompt,
    format_step,
    is_representable,
    judge,
    legal_moves,
    parse_puzzle,
    parse_step,
    reachable_values,
)

SOLUTION = (
    " 10 - 4 = 6 (left: 5 6 6)",
    " 6 * 5 = 30 (left: 6 30)",
    " 30 - 6 = 24 (left: 24)",
)


def evaluate(expression: str) -> Fraction:
    """The value of an expression by Python's own precedence, in exact fractions."""
    return eval(re.sub(r"\d+", r"Fraction(\g<0>)", expression), {"Fraction": Fraction})


def test_there_are_1820_puzzles() -> None:
    puzzles = all_puzzles()
    assert len(set(puzzles)) == 1820
    assert all(puzzle == tuple(sorted(puzzle)) for puzzle in puzzles)


def test_moves_are_exactly_those_that_python_computes() -> None:
    for puzzle in random.Random(1).sample(all_puzzles(), 50):
        expected = set()
        for i in range(4):
            for j in range(4):
                a, b = puzzle[i], puzzle[j]
                rest = [n for k, n in enumerate(puzzle) if k not in (i, j)]
                for operator in "+-*/":
                    # a < b only where the order matters: in a quotient.
                    if i == j or (a < b and operator != "/"):
                        continue
                    result = evaluate(f"{a} {operator} {b}")
                    if is_representable(result):
                        expected.add((a, operator, b, result, tuple(sorted([*rest, result]))))
        assert set(legal_moves(puzzle)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Fraction(199), True),
        (Fraction(200), False),
        (Fraction(199, 13), True),
        (Fraction(1, 14), False),
        (Fraction(-1), False),
        (Fraction(0), True),
    ],
)
def test_caps(value: Fraction, expected: bool) -> None:
    assert is_representable(value) == expected


def test_reachable_values_of_two_numbers() -> None:
    assert reachable_values(as_state([2, 3])) == {
        Fraction(5),
        Fraction(1),
        Fraction(6),
        Fraction(3, 2),
        Fraction(2, 3),
    }


def test_every_move_prints_as_a_line_that_leads_to_its_state() -> None:
    for puzzle in random.Random(2).sample(all_puzzles(), 100):
        for move in legal_moves(puzzle):
            for verdict in (None, "sure", "impossible"):
                line = format_step(move, verdict)
                assert parse_step(line) == move
                assert apply_step(puzzle, line) == move.state


@pytest.mark.parametrize(
    "line",
    [
        " 10 - 4 = 5 (left: 5 5 6)",  # wrong result
        " 10 - 3 = 7 (left: 5 6 7)",  # 3 is not there
        " 5 + 5 = 10 (left: 4 6 10 10)",  # there is one 5
        " 10 - 4 = 6 (left: 6 5 6)",  # not ascending
        " 10 - 4 = 6 (left: 5 6)",  # a number is missing
        " 10 - 4 = 6 (left: 5 6 6 6)",  # a number too many
        " 4 - 10 = -6 (left: -6 5 6)",  # negative
        " 4 / 10 = 4/10 (left: 4/10 5 6)",  # not in lowest terms
        "10 - 4 = 6 (left: 5 6 6)",  # no leading space
        " 10 - 4 = 6 (left: 5 6 6) maybe",
        " 10 ^ 4 = 6 (left: 5 6 6)",
        " 010 - 4 = 6 (left: 5 6 6)",
        " 10 - 4 = 6",
        "",
    ],
)
def test_illegal_lines_are_rejected(line: str) -> None:
    assert apply_step(as_state([4, 5, 6, 10]), line) is None


def test_division_by_zero_is_rejected() -> None:
    assert apply_step(as_state([0, 3, 5]), " 3 / 0 = 0 (left: 0 5)") is None
    assert apply_step(as_state([0, 3, 5]), " 0 / 3 = 0 (left: 0 5)") == (0, 5)


def test_judge_wants_legal_lines_that_end_on_the_target_alone() -> None:
    assert judge([4, 5, 6, 10], 24, SOLUTION)
    assert judge([10, 6, 5, 4], 24, [f"{line} sure" for line in SOLUTION])
    assert not judge([4, 5, 6, 10], 25, SOLUTION)
    assert not judge([4, 5, 6, 11], 24, SOLUTION)
    assert not judge([4, 5, 6, 10], 24, SOLUTION[:2])
    assert not judge([4, 5, 6, 10], 24, SOLUTION[1:])
    assert not judge([4, 5, 6, 10], 24, [*SOLUTION, SOLUTION[2]])


def test_expression_of_the_known_solution() -> None:
    assert build_expression([4, 5, 6, 10], SOLUTION) == "(10 - 4) * 5 - 6"


def test_expressions_have_the_value_and_the_numbers_of_their_steps() -> None:
    generator = random.Random(4)
    built = 0
    for puzzle in generator.sample(all_puzzles(), 400):
        state, lines = puzzle, []
        while moves := legal_moves(state):
            move = generator.choice(moves)
            lines.append(format_step(move))
            state = move.state
        if len(state) == 1:
            expression = build_expression(puzzle, lines)
            assert evaluate(expression) == state[0]
            assert as_state([int(n) for n in re.findall(r"\d+", expression)]) == puzzle
            built += 1
    assert built > 350


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (SOLUTION[:2], "leave 2 numbers"),
        ((" 10 - 4 = 7 (left: 5 6 7)",), "not legal from 4 5 6 10"),
    ],
)
def test_no_expression_of_bad_steps(lines: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_expression([4, 5, 6, 10], lines)


@pytest.mark.parametrize("text", ["4 5 6 10", "10, 6,5 4", " 6  10 4 5 "])
def test_puzzles_are_read_in_any_order(text: str) -> None:
    assert parse_puzzle(text) == (4, 5, 6, 10)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 numbers given, 4 needed"),
        ("4 5 6", "3 numbers given, 4 needed"),
        ("4 5 6 7 8", "5 numbers given, 4 needed"),
        ("4 5 6 14", "14 is not between 1 and 13"),
        ("0 5 6 7", "0 is not between 1 and 13"),
        ("4 5 6 1000000", "1000000 is not between"),
        ("4 5 6 -7", "'-7' is not a whole number"),
        ("4 5 6 x", "'x' is not a whole number"),
        ("4 5 6 ７", "is not a whole number"),
    ],
)
def test_bad_puzzles_name_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(PuzzleError, match=message):
        parse_puzzle(text)


def test_targets_outside_the_limits_are_refused() -> None:
    assert check_target(1) == 1
    assert check_target(100) == 100
    for target in (0, 101, -24):
        with pytest.raises(PuzzleError, match=f"target: {target} is not between 1 and 100"):
            check_target(target)


def test_prompt() -> None:
    assert format_prompt(as_state([10, 4, 6, 5]), 24) == "Make 24 from 4 5 6 10\n"
