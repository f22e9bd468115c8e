"""The exact game: states, legal moves, the text of a step and the judge, all in fractions.

A state is an ascending tuple of non-negative `Fraction`s. A step takes two numbers of the state and
puts the result of one operation back. Numbers are capped (`is_representable`) so that each one is a
token or two; no puzzle of four numbers from 1 to 13 loses a solution for the target 24 by it, and
negative numbers are never needed, since |x - y| serves as well as x - y up to the sign of the end.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from itertools import combinations, combinations_with_replacement
from typing import NamedTuple

State = tuple[Fraction, ...]

MAX_NUMERATOR = 199
MAX_DENOMINATOR = 13
MIN_TARGET, MAX_TARGET = 1, 100
MIN_NUMBER, MAX_NUMBER = 1, 13
PUZZLE_SIZE = 4
OPERATORS = "+-*/"

_NUMBER = r"[0-9]{1,3}(?:/[1-9][0-9]{0,2})?"
_STEP = re.compile(
    rf" ({_NUMBER}) ([-+*/]) ({_NUMBER}) = ({_NUMBER}) \(left:((?: {_NUMBER})+)\)"
    r"(?: (?:sure|impossible))?"
)


class PuzzleError(ValueError):
    """A puzzle or a target that the game does not accept."""


class Move(NamedTuple):
    """One legal step: `a operator b = result`, which leaves `state`."""

    a: Fraction
    operator: str
    b: Fraction
    result: Fraction
    state: State


def is_representable(value: Fraction) -> bool:
    """Whether a number is within the caps: 0 ≤ numerator ≤ 199 and denominator ≤ 13."""
    return 0 <= value.numerator <= MAX_NUMERATOR and value.denominator <= MAX_DENOMINATOR


def apply_operator(a: Fraction, operator: str, b: Fraction) -> Fraction | None:
    """`a operator b`, or None where it is undefined (division by zero)."""
    if operator == "+":
        return a + b
    if operator == "-":
        return a - b
    if operator == "*":
        return a * b
    return a / b if b != 0 else None


def legal_moves(state: State) -> list[Move]:
    """All distinct moves, larger operand first except for the division of the smaller one."""
    moves: dict[tuple[Fraction, str, Fraction], Move] = {}
    for i, j in combinations(range(len(state)), 2):
        low, high = state[i], state[j]
        rest = [number for k, number in enumerate(state) if k not in (i, j)]
        for a, operator, b in [(high, o, low) for o in OPERATORS] + [(low, "/", high)]:
            result = apply_operator(a, operator, b)
            if result is not None and is_representable(result):
                left = tuple(sorted([*rest, result]))
                moves[a, operator, b] = Move(a, operator, b, result, left)
    return list(moves.values())


@cache
def reachable_values(state: State) -> frozenset[Fraction]:
    """Every number that some sequence of legal moves turns the whole state into."""
    if len(state) == 1:
        return frozenset(state)
    return frozenset().union(*(reachable_values(move.state) for move in legal_moves(state)))


def all_puzzles() -> list[State]:
    """The 1,820 multisets of four numbers from 1 to 13, in lexicographic order."""
    numbers = range(MIN_NUMBER, MAX_NUMBER + 1)
    return [as_state(puzzle) for puzzle in combinations_with_replacement(numbers, PUZZLE_SIZE)]


def as_state(numbers: Sequence[int | Fraction]) -> State:
    """The ascending tuple of fractions of some numbers."""
    return tuple(sorted(Fraction(number) for number in numbers))


def parse_puzzle(text: str) -> tuple[int, ...]:
    """Reads `4 5 6 10` (spaces or commas) as four ascending integers; `PuzzleError` otherwise."""
    words = text.replace(",", " ").split()
    for word in words:
        if not re.fullmatch(r"[0-9]+", word):
            raise PuzzleError(f"puzzle: {word!r} is not a whole number")
        if len(word) > 2 or not MIN_NUMBER <= int(word) <= MAX_NUMBER:
            raise PuzzleError(f"puzzle: {word} is not between {MIN_NUMBER} and {MAX_NUMBER}")
    if len(words) != PUZZLE_SIZE:
        raise PuzzleError(f"puzzle: {len(words)} numbers given, {PUZZLE_SIZE} needed")
    return tuple(sorted(map(int, words)))


def check_target(target: int) -> int:
    """The target itself when it is between 1 and 100; `PuzzleError` otherwise."""
    if not MIN_TARGET <= target <= MAX_TARGET:
        raise PuzzleError(f"target: {target} is not between {MIN_TARGET} and {MAX_TARGET}")
    return target


def format_prompt(numbers: State, target: int) -> str:
    """The line that opens a puzzle, with its newline: `Make 24 from 4 5 6 10`."""
    return f"Make {target} from {' '.join(map(str, numbers))}\n"


def format_step(move: Move, verdict: str | None = None) -> str:
    """One step without its newline: ` 10 - 6 = 4 (left: 4 4 5) sure`."""
    left = " ".join(map(str, move.state))
    ending = f" {verdict}" if verdict else ""
    return f" {move.a} {move.operator} {move.b} = {move.result} (left: {left}){ending}"


def parse_step(line: str) -> Move | None:
    """Reads a step's text, with or without a verdict; None if it is not of the form.

    Numbers must be in canonical text (lowest terms, no leading zero) and within the caps. Whether
    the step is legal in some state is not looked at: see `apply_step`.
    """
    match = _STEP.fullmatch(line)
    if match is None:
        return None
    words = [match[1], match[3], match[4], *match[5].split()]
    numbers = [Fraction(word) for word in words]
    if not all(map(_is_canonical, numbers, words)):
        return None
    a, b, result, *left = numbers
    return Move(a, match[2], b, result, tuple(left))


def apply_step(state: State, line: str) -> State | None:
    """The state after a step's text, or None where the rules of the game reject the line.

    The operands must be two numbers of the state, the result exact, and `left` the remaining
    numbers in ascending order.
    """
    move = parse_step(line)
    if move is None:
        return None
    rest = list(state)
    for operand in (move.a, move.b):
        if operand not in rest:
            return None
        rest.remove(operand)
    if apply_operator(move.a, move.operator, move.b) != move.result:
        return None
    return move.state if tuple(sorted([*rest, move.result])) == move.state else None


def judge(numbers: Sequence[int | Fraction], target: int, lines: Sequence[str]) -> bool:
    """Whether the lines are legal steps, one after the other, that end on the target alone."""
    state = as_state(numbers)
    for line in lines:
        after = apply_step(state, line)
        if after is None:
            return False
        state = after
    return state == (Fraction(target),)


def build_expression(numbers: Sequence[int | Fraction], lines: Sequence[str]) -> str:
    """The one expression that legal steps amount to: `(10 - 4) * 5 - 6`.

    Raises:
      ValueError: a line is illegal, or the steps leave more than one number.
    """
    state = as_state(numbers)
    terms = [(number, str(number), _ATOM) for number in state]
    for line in lines:
        after = apply_step(state, line)
        move = parse_step(line)
        if after is None or move is None:
            raise ValueError(f"step {line!r} is not legal from {' '.join(map(str, state))}")
        left = _take_term(terms, move.a)
        right = _take_term(terms, move.b)
        terms.append((move.result, *_join(left, move.operator, right)))
        state = after
    if len(terms) != 1:
        raise ValueError(f"the steps leave {len(terms)} numbers, one is needed")
    return terms[0][1]


_SUM, _PRODUCT, _ATOM = 1, 2, 3
_PRECEDENCE = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT}
_Term = tuple[Fraction, str, int]


def _take_term(terms: list[_Term], number: Fraction) -> _Term:
    """Removes and returns one term of that value, the latest first."""
    index = max(i for i, term in enumerate(terms) if term[0] == number)
    return terms.pop(index)


def _join(left: _Term, operator: str, right: _Term) -> tuple[str, int]:
    """The text and precedence of `left operator right`, with the brackets that it needs."""
    precedence = _PRECEDENCE[operator]
    bracket_right = right[2] < precedence or (right[2] == precedence and operator in "-/")
    left_text = f"({left[1]})" if left[2] < precedence else left[1]
    right_text = f"({right[1]})" if bracket_right else right[1]
    return f"{left_text} {operator} {right_text}", precedence


def _is_canonical(value: Fraction, word: str) -> bool:
    """Whether a word is the one way to print a number, and the number is within the caps."""
    return str(value) == word and is_representable(value)
