"""The automata of JSON numbers."""

from __future__ import annotations

import functools
import json
from decimal import Decimal
from fractions import Fraction

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.automata.dfa_algebra import intersection, regex_dfa, texts_dfa
from dendrite_jax.grammar.automata.multiples import multiples_dfa
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES, Nfa
from dendrite_jax.grammar.automata.regex_ast import literal, optional
from dendrite_jax.grammar.json_schema import numerals
from dendrite_jax.grammar.json_schema.nodes import Number


def number_dfa(schema: Number, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The numerals of a number schema; TooManyStatesError if they need more than `max_states`."""
    return _number_dfa(schema, repr(schema), max_states)


@functools.lru_cache(512)
def _number_dfa(schema: Number, _written: str, max_states: int) -> Dfa:
    """The same; `_written` keeps bounds apart that are equal but have different readings."""
    (low, low_excluded), (high, high_excluded) = schema.lower(), schema.upper()
    if schema.integer:
        dfa = numerals.integers(
            _integer_bound(low, low_excluded, 1),
            _integer_bound(high, high_excluded, -1),
            max_states,
        )
    elif low is not None and low == high and not (low_excluded or high_excluded):
        dfa = texts_dfa([text.encode() for text in _spellings(low)])
    else:
        dfa = numerals.numbers(
            None if low is None else numerals.Bound(max(_readings(low)), low_excluded),
            None if high is None else numerals.Bound(min(_readings(high)), high_excluded),
            max_states,
        )
    if schema.multiple_of is not None:
        multiples = multiples_dfa(*_coefficient_and_scale(schema.multiple_of), max_states)
        sign = regex_dfa(optional(literal("-")))
        dfa = intersection(dfa, _joined(sign, multiples, max_states), max_states)
    return dfa


def _integer_bound(bound: float | None, excluded: bool, direction: int) -> int | None:
    """The innermost integer of a bound; `direction` points into the interval."""
    if bound is None:
        return None
    values = [Fraction(reading) for reading in _readings(bound)]
    value = max(values) if direction > 0 else min(values)
    nearest = -(-value // 1) if direction > 0 else value // 1
    return nearest + direction if excluded and nearest == value else nearest


def _readings(value: float) -> tuple[Decimal, Decimal]:
    """What a number of the schema may be taken for; of two values a bound is the inner one.

    Where a double's neighbours are whole numbers, validators compare with the double itself, and
    readers of the schema with the decimal numeral, which may be another whole number.
    """
    numeral = Decimal(repr(value))
    return numeral, Decimal(value) if value == int(value) else numeral


def _spellings(value: float) -> set[str]:
    """A single value's shortest numeral, and what `json.dumps` makes of the double (2 and 2.0)."""
    numeral, exact = _readings(value)
    texts = {numerals.decimal_text(numeral)} if numeral == exact else set()
    if value == 0:
        texts |= {"0.0", "-0.0"}
    elif float(value) == value:
        texts.add(json.dumps(float(value)))
    return texts


def _coefficient_and_scale(value: Fraction) -> tuple[int, int]:
    """(c, s) with value = c · 10^-s and s as small as possible."""
    scale = 0
    while (value * 10**scale).denominator != 1:
        scale += 1
    return int(value * 10**scale), scale


def _joined(first: Dfa, second: Dfa, max_states: int) -> Dfa:
    nfa = Nfa(max_states)
    start = nfa.state()
    return nfa.determinise(start, nfa.append_dfa(second, nfa.append_dfa(first, start)))
