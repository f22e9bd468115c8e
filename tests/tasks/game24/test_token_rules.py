"""The rules on token ids against the exact rules on the text of the same tokens."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.graph import StateGraph
from dendrite_jax.tasks.game24.game.rules import (
    MAX_DENOMINATOR,
    MAX_NUMERATOR,
    OPERATORS,
    Move,
    State,
    all_puzzles,
    apply_operator,
    apply_step,
    format_prompt,
    format_step,
    is_representable,
    legal_moves,
)
from dendrite_jax.tasks.game24.game.token_rules import (
    ABSENT,
    UNITS_PER_ONE,
    is_legal_step,
    numbers_before,
    parse_step,
    remaining_key,
)
from dendrite_jax.tasks.game24.game.values import NO_VALUE, value_table
from dendrite_jax.tasks.game24.training.tokenizer_build import build_tokenizer

CONTEXT = 80
LANES = 2048
PUZZLES = all_puzzles()
TOKENIZER = build_tokenizer()


Writer = Callable[[random.Random, State, Move], str]
"""A line, legal or not, made from a state and a legal move of it."""


class Case(NamedTuple):
    """A path whose last line may have been damaged."""

    state: State  # before the line
    tokens: list[int]
    start: int  # of the line


class Verdicts(NamedTuple):
    """What the token rules say of each case."""

    legal: np.ndarray
    before: np.ndarray
    left: np.ndarray
    left_count: np.ndarray


@jax.jit
def judge_lanes(tokens: jax.Array, start: jax.Array, end: jax.Array) -> tuple[jax.Array, ...]:
    before = numbers_before(tokens, start)
    step = parse_step(tokens, start, end)
    return is_legal_step(before, step), before, step.left, step.left_count


def judge_tokens(cases: Sequence[Case]) -> Verdicts:
    """Runs the token rules; what lies behind a path is random, as in a reused block."""
    parts = []
    noise = np.random.default_rng(5)
    for first in range(0, len(cases), LANES):
        batch = cases[first : first + LANES]
        tokens = noise.integers(0, vocab.VOCABULARY_SIZE, (LANES, CONTEXT), np.int32)
        start, end = np.zeros((2, LANES), np.int32)
        for lane, case in enumerate(batch):
            tokens[lane, : len(case.tokens)] = case.tokens
            start[lane], end[lane] = case.start, len(case.tokens)
        parts.append(judge_lanes(jnp.asarray(tokens), jnp.asarray(start), jnp.asarray(end)))
    together = (np.concatenate(column)[: len(cases)] for column in zip(*parts, strict=True))
    return Verdicts(*together)


def encode(text: str) -> list[int]:
    return TOKENIZER.encode(text).ids


def random_path(generator: random.Random, steps: int) -> tuple[State, str, Move]:
    """A state some legal steps below a puzzle, the text that led there, and a move from it."""
    state = generator.choice(PUZZLES)
    text = format_prompt(state, generator.randint(1, 100))
    for _ in range(steps):
        move = generator.choice(legal_moves(state))
        text += format_step(move, "sure") + "\n"
        state = move.state
    moves = legal_moves(state)  # seldom none, when all results are beyond the caps
    return (state, text, generator.choice(moves)) if moves else random_path(generator, steps)


def make_cases(seed: int, count: int, write: Writer) -> list[Case]:
    """Cases whose last line is written from a state and a legal move of it."""
    generator = random.Random(seed)
    cases = []
    for number in range(count):
        state, path, move = random_path(generator, number % 3)
        opening = [vocab.BOS, *encode(path)]
        line = encode(write(generator, state, move))
        cases.append(Case(state, opening + line, len(opening)))
    return cases


def legal_line(_: random.Random, __: State, move: Move) -> str:
    return format_step(move)


def wrong_result(generator: random.Random, _: State, move: Move) -> str:
    """Another result, in `left` too."""
    result = Fraction(generator.randint(0, MAX_NUMERATOR), generator.randint(1, MAX_DENOMINATOR))
    left = list(move.state)
    left[left.index(move.result)] = result
    return format_step(move._replace(result=result, state=tuple(sorted(left))))


def foreign_operand(generator: random.Random, state: State, move: Move) -> str:
    """An exact sum with a number that may not be in the state."""
    b = Fraction(generator.randint(0, 20))
    rest = list(state)
    rest.remove(move.a)
    rest.pop(0)
    left = tuple(sorted([*rest, move.a + b]))
    return format_step(Move(move.a, "+", b, move.a + b, left))


def same_number_twice(generator: random.Random, state: State, _: Move) -> str:
    """`x + x` where the state may have one x only, which is taken away or one more with it."""
    x = generator.choice(state)
    rest = list(state)
    rest.remove(x)
    if generator.random() < 0.5 and rest:
        rest.remove(generator.choice(rest))
    return format_step(Move(x, "+", x, 2 * x, tuple(sorted([*rest, 2 * x]))))


def neutral_operand(generator: random.Random, state: State, _: Move) -> str:
    """`x - 0 = x` and the like, with an x that is not there: the numbers would add up."""
    x, neutral = Fraction(generator.randint(0, 20)), state[0]
    rest = list(state)
    rest.remove(neutral)
    return format_step(Move(x, generator.choice("+-*/"), neutral, x, tuple(sorted([*rest, x]))))


def shuffled_left(generator: random.Random, _: State, move: Move) -> str:
    left = generator.sample(move.state, len(move.state))
    return format_step(move._replace(state=tuple(left)))


def missing_number(generator: random.Random, _: State, move: Move) -> str:
    left = list(move.state)
    left.remove(generator.choice(left))
    return format_step(move._replace(state=tuple(left)))


def additional_number(generator: random.Random, _: State, move: Move) -> str:
    left = sorted([*move.state, Fraction(generator.randint(0, 20))])
    return format_step(move._replace(state=tuple(left)))


def any_operation(generator: random.Random, state: State, _: Move) -> str:
    """Two numbers in any order: division by zero, negative and too big results are among them."""
    a, b = generator.sample(state, 2)
    operator = generator.choice(OPERATORS)
    result = apply_operator(a, operator, b)
    if result is None or not is_representable(result):
        shown = Fraction(0) if result is None else abs(result)
        result = Fraction(min(shown.numerator, MAX_NUMERATOR), min(shown.denominator, 13))
    rest = list(state)
    rest.remove(a)
    rest.remove(b)
    return format_step(Move(a, operator, b, result, tuple(sorted([*rest, result]))))


def not_lowest_terms(generator: random.Random, _: State, move: Move) -> str:
    factor = generator.randint(1, 4)
    result = f"{move.result.numerator * factor}/{move.result.denominator * factor}"
    return format_step(move).replace(str(move.result), result)


def check_against_text(cases: Sequence[Case]) -> Counter[bool]:
    """Asserts that tokens and text are judged alike; how many were legal and how many not."""
    verdicts = judge_tokens(cases)
    for case, legal in zip(cases, verdicts.legal, strict=True):
        line = TOKENIZER.decode(case.tokens[case.start :], skip_special_tokens=False)
        assert legal == (apply_step(case.state, line) is not None), (case.state, line)
    return Counter(verdicts.legal.tolist())


def test_every_move_of_some_puzzles_is_legal() -> None:
    cases = []
    for puzzle in random.Random(3).sample(PUZZLES, 40):
        opening = [vocab.BOS, *encode(format_prompt(puzzle, 24))]
        for move in legal_moves(puzzle):
            cases.append(Case(puzzle, opening + encode(format_step(move)), len(opening)))
            step = encode(format_step(move, "sure") + "\n")
            for next_move in legal_moves(move.state)[::5]:
                path = opening + step
                cases.append(Case(move.state, path + encode(format_step(next_move)), len(path)))
    assert len(cases) > 3000
    verdicts = judge_tokens(cases)
    assert verdicts.legal.all()
    assert (verdicts.left_count == [len(case.state) - 1 for case in cases]).all()
    for case, before in zip(cases, verdicts.before, strict=True):
        absent = [ABSENT] * (4 - len(case.state))
        assert before.tolist() == [number * UNITS_PER_ONE for number in case.state] + absent


@pytest.mark.parametrize(
    ("write", "least_legal"),
    [
        (wrong_result, 0),
        (foreign_operand, 1),
        (same_number_twice, 1),
        (neutral_operand, 0),
        (shuffled_left, 50),
        (missing_number, 0),
        (additional_number, 0),
        (any_operation, 50),
        (not_lowest_terms, 50),
    ],
)
def test_damaged_lines_are_judged_as_their_text_is(write: Writer, least_legal: int) -> None:
    judged = check_against_text(make_cases(11, 1000, write))
    assert judged[True] >= least_legal
    assert judged[False] >= 150


def test_any_changed_token_is_judged_as_its_text_is() -> None:
    """Every token of legal lines replaced, removed or followed by an additional one."""
    generator = random.Random(17)
    telling = [
        *range(vocab.NUMBER_BASE, vocab.NUMBER_BASE + 26),
        *range(vocab.DENOMINATOR_BASE + 2, vocab.DENOMINATOR_BASE + 14),
        *(vocab.token_id(f" {operator}") for operator in OPERATORS),
        *(vocab.EQUALS, vocab.LEFT_OPEN, vocab.LEFT_CLOSE, vocab.NEWLINE, vocab.FROM),
    ]
    cases = []
    for case in make_cases(19, 600, legal_line):
        for place in range(case.start, len(case.tokens)):
            for replaced in (0, 1):
                tokens = list(case.tokens)
                token = generator.choice(telling)
                if generator.random() < 0.3:
                    token = generator.randrange(vocab.VOCABULARY_SIZE)
                tokens[place : place + replaced] = [token]
                cases.append(case._replace(tokens=tokens))
            shorter = case.tokens[:place] + case.tokens[place + 1 :]
            cases.append(case._replace(tokens=shorter))
    judged = check_against_text(cases)
    assert judged[True] > 50
    assert judged[False] > 10_000


def test_a_line_in_other_tokens_than_the_tokenizers_is_not_legal() -> None:
    opening = [vocab.BOS, *encode("Make 24 from 2 3 4 10\n")]
    line = encode(" 10 + 2 = 12 (left: 3 4 12)")
    bytes_of_12 = [vocab.token_id(character) for character in " 12"]
    spelt = [*line[:4], *bytes_of_12, *line[5:]]
    assert TOKENIZER.decode(spelt) == TOKENIZER.decode(line)
    state = tuple(map(Fraction, (2, 3, 4, 10)))
    cases = [Case(state, opening + tokens, len(opening)) for tokens in (line, spelt)]
    assert judge_tokens(cases).legal.tolist() == [True, False]


@pytest.mark.parametrize(
    "path",
    ["", "Make 24", "Make 24 from\n", "Make 24 from 1 2 3 4 5\n", "Make 24 from 2/4 3 6\n"],
)
def test_without_a_readable_state_nothing_is_legal(path: str) -> None:
    opening = encode(path)
    lines = [encode(" 3 - 2 = 1 (left: 1)"), encode(" 3 + 3 = 6 (left: 6 6)"), []]
    cases = [Case((), opening + line, len(opening)) for line in lines]
    verdicts = judge_tokens(cases)
    assert not verdicts.legal.any()
    assert (verdicts.before == ABSENT).all()


def test_left_is_read_in_the_order_written() -> None:
    cases = make_cases(29, 600, shuffled_left)
    for case, left in zip(cases, judge_tokens(cases).left, strict=True):
        line = TOKENIZER.decode(case.tokens[case.start :])
        words = line.partition("left: ")[2].removesuffix(")").split()
        units = [int(Fraction(word) * UNITS_PER_ONE) for word in words]
        assert left.tolist() == units + [ABSENT] * (3 - len(units))


def test_keys_tell_the_states_of_a_level_apart(graph: StateGraph) -> None:
    """Of all that any puzzle leads to; and the order written does not matter."""
    values = value_table()
    units = values.numerator * (UNITS_PER_ONE // values.denominator)
    left = np.where(graph.numbers == NO_VALUE, ABSENT, units[graph.numbers])[:, :3]
    key, turned = (
        np.asarray(remaining_key(jnp.asarray(numbers))) for numbers in (left, np.roll(left, 1, 1))
    )
    assert (key == turned).all()
    for puzzle in range(0, len(PUZZLES), 3):
        level = np.array([puzzle])
        for _ in range(3):
            moves = [np.arange(graph.first_move[s], graph.first_move[s + 1]) for s in level]
            level = np.unique(graph.next_state[np.concatenate(moves)])
            assert len(np.unique(key[level])) == len(level)


def test_idle_lanes_are_not_legal() -> None:
    tokens = jnp.zeros((LANES, CONTEXT), jnp.int32)
    nothing = jnp.zeros(LANES, jnp.int32)
    assert not judge_lanes(tokens, nothing, nothing)[0].any()
    assert not judge_lanes(tokens, nothing - 3, nothing)[0].any()
