"""Automata given by a function from a state and a character to the next state."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np

from dendrite_jax.grammar.automata.dfa import BYTES, DEAD, Dfa
from dendrite_jax.grammar.automata.minimise import minimise
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES
from dendrite_jax.grammar.errors import TooManyStatesError

_State = TypeVar("_State", bound=Hashable)


def machine_dfa(
    start: _State,
    step: Callable[[_State, str], _State | None],
    accepts: Callable[[_State], bool],
    alphabet: str,
    max_states: int = DEFAULT_MAX_STATES,
) -> Dfa:
    """The minimal automaton of a machine over ASCII characters; `step` gives None to refuse one.

    Raises:
        TooManyStatesError: more than `max_states` states can be reached.
    """
    states = [start]
    numbers = {start: 0}
    rows = []
    for state in states:
        row = np.full(BYTES, DEAD, np.int32)
        for char in alphabet:
            target = step(state, char)
            if target is None:
                continue
            row[ord(char)] = numbers.setdefault(target, len(states))
            if row[ord(char)] == len(states):
                states.append(target)
        if len(states) > max_states:
            raise TooManyStatesError(f"needs more than {max_states} automaton states (max_states)")
        rows.append(row)
    accept = np.array([accepts(state) for state in states])
    return minimise(Dfa.from_dense(np.array(rows), accept))
