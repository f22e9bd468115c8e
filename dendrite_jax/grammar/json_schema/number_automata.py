"""The automata of JSON numbers."""

from __future__ import annotations

import functools
from fractions import Fraction

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.automata.dfa_algebra import intersection, regex_dfa
from dendrite_jax.grammar.automata.multiples import multiples_dfa
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES, Nfa
from dendrite_jax.grammar.automata.regex_ast import literal, optional
from dendrite_jax.grammar.json_schema import numerals
from dendrite_jax.grammar.json_schema.nodes import Number


@functools.lru_cache(512)
def number_dfa(schema: Number, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The numerals of a number schema; TooManyStatesError if they need more than `max_states`."""
    (low, low_excluded), (high, high_excluded) = schema.lower(), schema.upper()
    if schema.integer:
        node = numerals.integers(
            _integer_bound(low, low_excluded, 1), _integer_bound(high, high_excluded, -1)
        )
    else:
        node = numerals.numbers(low, high, low_excluded, high_excluded)
    dfa = regex_dfa(node, max_states)
    if schema.multiple_of is not None:
        multiples = multiples_dfa(*_coefficient_and_scale(schema.multiple_of), max_states)
        sign = regex_dfa(optional(literal("-")))
        dfa = intersection(dfa, _joined(sign, multiples, max_states), max_states)
    return dfa


def _integer_bound(bound: float | None, excluded: bool, direction: int) -> int | None:
    """The innermost integer of a bound; `direction` points into the interval."""
    if bound is None:
        return None
    nearest = -int(-bound // 1) if direction > 0 else int(bound // 1)
    return nearest + direction if excluded and nearest == bound else nearest


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
