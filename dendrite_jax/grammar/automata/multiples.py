"""The automaton of the decimal numerals that are multiples of a given number."""

from __future__ import annotations

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.automata.machine import machine_dfa
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES

_POINT = "."
# (what is read, remainder, digits still allowed after the point).
_State = tuple[str, int, int]
_START: _State = ("start", 0, 0)


def multiples_dfa(coefficient: int, scale: int, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """Unsigned decimal numerals that are multiples of `coefficient` · 10^-`scale`.

    At most `scale` digits follow the point: 1.5 and 1.50 are multiples of 0.25, and 1.500 is no
    numeral of it. Zeros may lead.

    Raises:
        TooManyStatesError: the coefficient needs more than `max_states` states.
    """

    def step(state: _State, char: str) -> _State | None:
        part, remainder, left = state
        if char == _POINT:
            return _fraction(remainder, scale, coefficient) if part == "whole" and scale else None
        if part != "fraction":
            return "whole", (remainder * 10 + int(char) * 10**scale) % coefficient, 0
        if left == 0:
            return None
        return _fraction(remainder + int(char) * 10 ** (left - 1), left - 1, coefficient)

    def accepts(state: _State) -> bool:
        # Right after the point a digit is missing.
        part, remainder, left = state
        return part != "start" and remainder == 0 and not (part == "fraction" and left == scale)

    return machine_dfa(_START, step, accepts, "0123456789" + _POINT, max_states)


def _fraction(remainder: int, left: int, coefficient: int) -> _State | None:
    """The state after the point, None where the digits left do not reach a multiple."""
    remainder %= coefficient
    return None if -remainder % coefficient >= 10**left else ("fraction", remainder, left)
