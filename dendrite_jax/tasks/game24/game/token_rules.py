"""The rules of the game on token ids, for lanes of a jitted search: no text, no Python fractions.

Agrees with `rules.apply_step` on the text of a line, with one exception: a line that is spelt in
other tokens than the tokenizer's own (` 1` and `2` for ` 12`) is never legal here.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import thought_key
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.rules import MAX_DENOMINATOR, MAX_NUMERATOR, PUZZLE_SIZE

UNITS_PER_ONE = 360_360
"""lcm(1 … 13): every number of the game is a whole number of units, at most 199 · 360,360 < 2³¹."""
ABSENT = 2**31 - 1
"""Units of a number that is not there; sorts after all others."""
LINE_TOKENS = 16
"""Of the longest legal line, up to its `)`: four words and six numbers of two tokens each."""

_MOST_LEFT = PUZZLE_SIZE - 1
# Items of a line: a, operator, b, =, result, (left:, the numbers left, ).
_A, _OPERATOR, _B, _EQUALS, _RESULT, _LEFT_OPEN, _LEFT = range(7)
_LINE_ITEMS = _LEFT + _MOST_LEFT + 1
# bool[200, 14] by numerator and denominator; a lookup compiles faster than Euclid's loop.
_LOWEST_TERMS = np.gcd.outer(np.arange(MAX_NUMERATOR + 1), np.arange(MAX_DENOMINATOR + 1)) == 1
_PLUS, _MINUS, _TIMES, _OVER = (vocab.token_id(f" {operator}") for operator in "+-*/")


class Numbers(NamedTuple):
    """Fractions in lowest terms; arrays of one shape."""

    numerator: Array  # i32[...], 0 … 199
    denominator: Array  # i32[...], 1 … 13

    @property
    def units(self) -> Array:
        """The values i32[...] in units; in the order of the numbers, equal for equal ones."""
        return self.numerator * (UNITS_PER_ONE // self.denominator)


class Step(NamedTuple):
    """One line, `a operator b = result (left: …)`; arbitrary numbers where not well formed."""

    a: Numbers  # i32[lanes]
    operator: Array  # i32[lanes], token ids
    b: Numbers  # i32[lanes]
    result: Numbers  # i32[lanes]
    left: Array  # i32[lanes, 3], units in the order written, ABSENT past the end
    well_formed: Array  # bool[lanes]

    @property
    def left_count(self) -> Array:
        """How many numbers are left, i32[lanes]."""
        return jnp.sum(self.left != ABSENT, axis=1)


class _Items(NamedTuple):
    """Tokens with every number as one item, whether it takes one token or two."""

    token: Array  # i32[lanes, items], the first token; NO_TOKEN past the end
    denominator: Array  # i32[lanes, items], 1 where there is none
    total: Array  # i32[lanes], items, those that found no room included
    valid: Array  # bool[lanes], every denominator belongs to a number and is in lowest terms

    def numbers(self, first: int, count: int | None = None) -> Numbers:
        """The items from `first` on as numbers, or one item when there is no count."""
        part = first if count is None else slice(first, first + count)
        numerator = jnp.clip(self.token[:, part] - vocab.NUMBER_BASE, 0, MAX_NUMERATOR)
        return Numbers(numerator, self.denominator[:, part])


def numbers_before(tokens: Array, start: Array) -> Array:
    """The state that a line starts from, read off the tokens before it.

    Args:
      tokens: i32[lanes, context], whole paths: the prompt and the lines of steps.
      start: i32[lanes], where the line starts.

    Returns:
      i32[lanes, 4], in units, of the last `(left:` before the line, or of the prompt's `from`;
      ABSENT past the end, and throughout where there is none or it is not of the form.
    """
    position = jnp.arange(tokens.shape[1])
    opens = (tokens == vocab.LEFT_OPEN) | (tokens == vocab.FROM)
    opens &= position < start[:, None]
    opened = jnp.max(jnp.where(opens, position, -1), axis=1)
    items = _read_items(tokens, opened + 1, start, 2 * PUZZLE_SIZE + 1, PUZZLE_SIZE + 1)
    leading = jnp.cumprod(_is_number(items.token), axis=1)
    complete = (opened >= 0) & items.valid & (leading[:, PUZZLE_SIZE] == 0)
    held = leading[:, :PUZZLE_SIZE].astype(bool) & complete[:, None]
    return jnp.where(held, items.numbers(0, PUZZLE_SIZE).units, ABSENT)


def parse_step(tokens: Array, start: Array, end: Array) -> Step:
    """Reads one line.

    Args:
      tokens: i32[lanes, context].
      start: i32[lanes], the position of the line's first token.
      end: i32[lanes], the position after its `)`, which has to be its last token.

    Returns:
      The step; well formed where the text of the line is of the form that `rules.parse_step` reads
      and no more than three numbers are left.
    """
    items = _read_items(tokens, start, end, LINE_TOKENS, _LINE_ITEMS)
    is_number = _is_number(items.token)
    operator = items.token[:, _OPERATOR]
    is_operator = jnp.any(operator[:, None] == jnp.array([_PLUS, _MINUS, _TIMES, _OVER]), axis=1)
    left_count = items.total - _LEFT - 1
    place = jnp.arange(_MOST_LEFT)
    written = place < left_count[:, None]
    close = jnp.arange(_LINE_ITEMS) == (items.total - 1)[:, None]
    well_formed = (
        items.valid
        & (end - start <= LINE_TOKENS)
        & (left_count >= 1)
        & (left_count <= _MOST_LEFT)
        & is_number[:, _A]
        & is_operator
        & is_number[:, _B]
        & (items.token[:, _EQUALS] == vocab.EQUALS)
        & is_number[:, _RESULT]
        & (items.token[:, _LEFT_OPEN] == vocab.LEFT_OPEN)
        & jnp.all(is_number[:, _LEFT : _LEFT + _MOST_LEFT] | ~written, axis=1)
        & jnp.any(close & (items.token == vocab.LEFT_CLOSE), axis=1)
    )
    return Step(
        a=items.numbers(_A),
        operator=operator,
        b=items.numbers(_B),
        result=items.numbers(_RESULT),
        left=jnp.where(written, items.numbers(_LEFT, _MOST_LEFT).units, ABSENT),
        well_formed=well_formed,
    )


def is_legal_step(before: Array, step: Step) -> Array:
    """Whether lines are legal steps: bool[lanes].

    The operands have to be two numbers of the state, the result exact, and `left` the remaining
    numbers in ascending order.

    Args:
      before: i32[lanes, 4], the states in units, as `numbers_before` gives them.
      step: the lines.
    """
    rest, has_a = _take(before, step.a.units)
    rest, has_b = _take(rest, step.b.units)
    after = jnp.sort(jnp.concatenate([rest, step.result.units[:, None]], axis=1), axis=1)
    as_written = jnp.all(after[:, :_MOST_LEFT] == step.left, axis=1)
    return step.well_formed & has_a & has_b & _is_exact(step) & as_written


def remaining_key(left: Array) -> Array:
    """A hash i32[lanes] of the numbers left, i32[lanes, 3] in units, whatever their order."""
    return thought_key(jnp.sort(left, axis=1))


def _is_exact(step: Step) -> Array:
    """Whether `a operator b` is the result: bool[lanes]."""
    a, b, result = step.a, step.b, step.result
    product = a.numerator * b.numerator * result.denominator
    quotient = a.numerator * b.denominator * result.denominator
    return jnp.select(
        [step.operator == _PLUS, step.operator == _MINUS, step.operator == _TIMES],
        [
            a.units + b.units == result.units,
            a.units - b.units == result.units,
            product == result.numerator * a.denominator * b.denominator,
        ],
        (quotient == result.numerator * a.denominator * b.numerator) & (b.numerator > 0),
    )


def _take(numbers: Array, wanted: Array) -> tuple[Array, Array]:
    """Takes one number i32[lanes] out of i32[lanes, n]: ABSENT in its place; and if it was there.

    A wanted number is never ABSENT.
    """
    matches = numbers == wanted[:, None]
    first = matches & (jnp.cumsum(matches, axis=1) == 1)
    return jnp.where(first, ABSENT, numbers), jnp.any(matches, axis=1)


def _read_items(tokens: Array, start: Array, end: Array, width: int, count: int) -> _Items:
    """The first `count` items of up to `width` tokens from `start` on, none at or past `end`."""
    position = start[:, None] + jnp.arange(width)
    inside = (start[:, None] >= 0) & (position < end[:, None])
    there = jnp.clip(position, 0, tokens.shape[1] - 1)
    window = jnp.where(inside, jnp.take_along_axis(tokens, there, axis=1), NO_TOKEN)
    denominator = window - vocab.DENOMINATOR_BASE
    is_denominator = (denominator >= 2) & (denominator <= MAX_DENOMINATOR)
    previous = jnp.pad(window, ((0, 0), (1, 0)), constant_values=NO_TOKEN)[:, :width]
    numerator = jnp.clip(previous - vocab.NUMBER_BASE, 0, MAX_NUMERATOR)
    lowest_terms = jnp.asarray(_LOWEST_TERMS)[numerator, jnp.clip(denominator, 0, MAX_DENOMINATOR)]
    item = jnp.cumsum(~is_denominator, axis=1) - 1

    # One-hot sums instead of scatters, which are slow to compile and to run.
    belongs = item[:, :, None] == jnp.arange(count)
    first = belongs & ~is_denominator[:, :, None]
    second = belongs & is_denominator[:, :, None]
    found = jnp.any(second, axis=1)
    return _Items(
        token=jnp.sum(jnp.where(first, window[:, :, None] - NO_TOKEN, 0), axis=1) + NO_TOKEN,
        denominator=jnp.where(
            found, jnp.sum(jnp.where(second, denominator[:, :, None], 0), axis=1), 1
        ),
        total=jnp.sum(inside & ~is_denominator, axis=1),
        valid=jnp.all(~is_denominator | (_is_number(previous) & lowest_terms), axis=1),
    )


def _is_number(token: Array) -> Array:
    """Whether tokens are the ones of ` 0` … ` 199`."""
    return (token >= vocab.NUMBER_BASE) & (token <= vocab.NUMBER_BASE + MAX_NUMERATOR)
