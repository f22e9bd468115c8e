"""Generating and searching over a `LazyTable`: the host adds the edges that the device lacks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np

from dendrite_jax.engine import WANTED, Constraint, Generated, State, with_table
from dendrite_jax.engine.stopping import GRAMMAR_MISS
from dendrite_jax.grammar import LazyGrammar, LazyTable, TooManyStatesError

T = TypeVar("T")


def add_wanted_edges(grammar: LazyGrammar, state: State) -> State:
    """The state, consumed, over a table that has the edges which its branches met and lacked.

    Raises:
      TooManyStatesError: the branches' states alone fill the grammar's table; nothing changed.
    """
    constraint, table = _lazy(state)
    states, tokens = _wanted(constraint)
    grown = grammar.expand(states, tokens, held=constraint.grammar_state, table=table)
    return with_table(state, grown)


def complete_generation(
    grammar: LazyGrammar,
    state: State,
    out: Generated,
    go_on: Callable[[State, Generated], tuple[State, Generated]],
) -> tuple[State, Generated]:
    """Lets the lanes of a generation that lacked an edge go on until none lacks any.

    Args:
      grammar: what the state's branches are under.
      state: the engine state after the generation.
      out: what it gave.
      go_on: `engine.generate` with the generation's own arguments, its `begun` the second here.
    """
    while np.any(np.asarray(out.finish) == GRAMMAR_MISS):
        state, out = go_on(add_wanted_edges(grammar, state), out)
    return state, out


def complete_search(
    grammar: LazyGrammar, state: State, search: Callable[[State], tuple[State, T]]
) -> tuple[State, T]:
    """Repeats a search from its start until it meets known edges only.

    What it gives is what a search over a full table would. A repeat goes at least one token
    further; what earlier searches met is known, so that most need few.

    Args:
      grammar: what the state's branches are under.
      state: the engine state before the search; its table is consumed.
      search: the jitted search, which must not donate the state.

    Raises:
      TooManyStatesError: one search alone needs more nodes or masks than the grammar may keep.
    """
    emptied = False
    while True:
        after, result = search(state)
        states, tokens = _wanted(_lazy(after)[0])
        if not len(states):
            return after, result
        constraint, table = _lazy(state)
        try:
            # A repeat passes through all nodes that the search has met: none may be forgotten.
            table = grammar.expand(states, tokens, held=grammar.states, table=table)
        except TooManyStatesError:
            if emptied:
                raise
            table = grammar.forget(constraint.grammar_state)
            emptied = True
        state = with_table(state, table)


def _lazy(state: State) -> tuple[Constraint, LazyTable]:
    constraint = state.constraint
    if constraint is None or not isinstance(constraint.table, LazyTable):
        raise ValueError("state.constraint has no LazyTable; only one can lack an edge")
    return constraint, constraint.table


def _wanted(constraint: Constraint) -> tuple[np.ndarray, np.ndarray]:
    """The logged misses: grammar states i32[n] and tokens i32[n]."""
    wanted, count = jax.device_get((constraint.wanted, constraint.num_wanted))
    return wanted[: min(count, WANTED), 0], wanted[: min(count, WANTED), 1]
