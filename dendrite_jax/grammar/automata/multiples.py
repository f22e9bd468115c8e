"""The automaton of the decimal numerals that are multiples of a given number."""

from __future__ import annotations

import numpy as np

from dendrite_jax.grammar.automata.dfa import BYTES, DEAD, Dfa
from dendrite_jax.grammar.automata.minimise import minimise
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES
from dendrite_jax.grammar.errors import TooManyStatesError

_POINT = "."
_START = ("start", 0, 0)
# (kind, remainder, digits still allowed after the point), or ("forced", digits, 0).
_State = tuple[str, int | str, int]


def multiples_dfa(coefficient: int, scale: int, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """Unsigned decimal numerals that are multiples of `coefficient` · 10^-`scale`.

    As llguidance has it, at most `scale` digits follow the point, and once only one choice of
    digits is left all of them are written: 1.50 is a multiple of 0.25 but 1.5 is not.

    Raises:
        TooManyStatesError: the coefficient needs more than `max_states` states.
    """
    states: list[_State] = [_START]
    numbers: dict[_State, int] = {_START: 0}
    rows = []
    for state in states:
        row = np.full(BYTES, DEAD, np.int32)
        for char in "0123456789" + _POINT:
            target = _step(state, char, coefficient, scale)
            if target is None:
                continue
            row[ord(char)] = numbers.setdefault(target, len(states))
            if row[ord(char)] == len(states):
                states.append(target)
        if len(states) > max_states:
            raise TooManyStatesError(f"needs more than {max_states} automaton states (max_states)")
        rows.append(row)
    accept = np.array([state[0] != "start" and state[1] in (0, "") for state in states])
    return minimise(Dfa.from_dense(np.array(rows), accept))


def _step(state: _State, char: str, coefficient: int, scale: int) -> _State | None:
    kind, value, left = state
    if isinstance(value, str):
        return (kind, value[1:], 0) if value[:1] == char else None
    if kind == "fraction":
        if char == _POINT or left == 0:
            return None
        return _fraction(
            (value + int(char) * 10 ** (left - 1)) % coefficient, left - 1, coefficient
        )
    if char == _POINT:
        return _fraction(value, scale, coefficient) if scale else None
    return ("whole", (value * 10 + int(char) * 10**scale) % coefficient, 0)


def _fraction(remainder: int, left: int, coefficient: int) -> _State | None:
    missing = -remainder % coefficient
    if left == 0:
        return ("fraction", 0, 0) if remainder == 0 else None
    if missing >= 10**left:
        return None
    if 10**left <= coefficient:
        return ("forced", f"{missing:0{left}d}", 0)
    return ("fraction", remainder, left)
