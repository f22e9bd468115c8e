"""The numbers of the game as small integers, with their operations as one lookup table.

There are finitely many numbers within the caps of `rules`. Each gets an id in ascending order of
value, so that a state is an ascending row of ids and whole levels of the game are numpy gathers.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dendrite_jax.tasks.game24.game.rules import MAX_DENOMINATOR, MAX_NUMERATOR, OPERATORS

NO_VALUE = -1


class ValueTable(NamedTuple):
    """All representable numbers and the result of every operation on two of them."""

    numerator: np.ndarray  # i32[values], lowest terms
    denominator: np.ndarray  # i32[values]
    id_of: np.ndarray  # i16[MAX_NUMERATOR + 1, MAX_DENOMINATOR + 1], NO_VALUE if not lowest terms
    result: np.ndarray  # i16[4, values, values], operators as in OPERATORS; NO_VALUE = illegal

    def encode(self, value: Fraction | int) -> int:
        """The id of a representable number."""
        fraction = Fraction(value)
        return int(self.id_of[fraction.numerator, fraction.denominator])

    def decode(self, value_id: int) -> Fraction:
        """The number of an id."""
        return Fraction(int(self.numerator[value_id]), int(self.denominator[value_id]))


@lru_cache(maxsize=1)
def value_table() -> ValueTable:
    """Builds the table (about 1,600 numbers) once a process."""
    numerator, denominator = np.meshgrid(
        np.arange(MAX_NUMERATOR + 1), np.arange(1, MAX_DENOMINATOR + 1), indexing="ij"
    )
    lowest = np.gcd(numerator, denominator) == 1
    numerator, denominator = numerator[lowest], denominator[lowest]
    order = np.argsort(numerator / denominator)
    numerator, denominator = numerator[order], denominator[order]
    id_of = np.full((MAX_NUMERATOR + 1, MAX_DENOMINATOR + 1), NO_VALUE, np.int16)
    id_of[numerator, denominator] = np.arange(len(numerator))
    result = np.stack([_results(id_of, numerator, denominator, o) for o in OPERATORS])
    return ValueTable(numerator.astype(np.int32), denominator.astype(np.int32), id_of, result)


def _results(
    id_of: np.ndarray, numerator: np.ndarray, denominator: np.ndarray, operator: str
) -> np.ndarray:
    """The ids i16[values, values] of one operation on all pairs, NO_VALUE where not allowed."""
    a, b = numerator[:, None], numerator[None, :]
    c, d = denominator[:, None], denominator[None, :]
    if operator == "+":
        top, bottom = a * d + b * c, c * d
    elif operator == "-":
        top, bottom = a * d - b * c, c * d
    elif operator == "*":
        top, bottom = a * b, c * d
    else:
        top, bottom = a * d, c * b
    common = np.maximum(np.gcd(top, bottom), 1)
    top, bottom = top // common, bottom // common
    legal = (top >= 0) & (top <= MAX_NUMERATOR) & (bottom >= 1) & (bottom <= MAX_DENOMINATOR)
    return np.where(legal, id_of[np.where(legal, top, 0), np.where(legal, bottom, 1)], NO_VALUE)
