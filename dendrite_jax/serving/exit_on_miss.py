"""Generating and searching over a `LazyTable`: the host adds the edges that the device lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from dendrite_jax.engine import WANTED, Constraint, Generated, State, constrain, with_table
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
    return with_table(state, _grown(grammar, states, tokens, constraint.grammar_state, table))


def resume_grammar(
    grammar: LazyGrammar,
    state: State,
    branch_ids: ArrayLike,
    tokens: Sequence[Sequence[int]],
    grammar_index: ArrayLike = 0,
) -> State:
    """Puts the branches of a restored state where they were, in another process's `LazyGrammar`.

    The numbers of nodes are of one `LazyGrammar` only; what a branch has generated says where it
    is in any.

    Args:
      grammar: the same grammars as before.
      state: the restored state, whose own table is dropped: other branches are without a grammar.
      branch_ids: i32[n].
      tokens: for each branch what it has generated under its grammar, without the prompt.
      grammar_index: i32[] or i32[n], which grammar each was under.

    Raises:
      GrammarError: a grammar does not allow its branch's tokens.
    """
    ids = jnp.asarray(branch_ids, jnp.int32)
    index = np.broadcast_to(np.asarray(grammar_index, np.int32), ids.shape)
    places = [
        grammar.state_after(taken, i) for taken, i in zip(tokens, index.tolist(), strict=True)
    ]
    state = constrain(state.replace(constraint=None), ids, grammar.table, jnp.asarray(index))
    constraint, _ = _lazy(state)
    taken = jnp.array([len(text) for text in tokens], jnp.int32)
    place = constraint.places(ids)._replace(
        grammar_state=jnp.array(places, jnp.int32), text_start=state.cache.length[ids] - taken
    )
    return state.replace(constraint=constraint.put(ids, place))


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
            table = _grown(grammar, states, tokens, np.array(grammar.states), table)
        except TooManyStatesError:
            if emptied:
                raise
            table = _one_for_each(grammar.forget(constraint.grammar_state), table)
            emptied = True
        state = with_table(state, table)


def _lazy(state: State) -> tuple[Constraint, LazyTable]:
    constraint = state.constraint
    if constraint is None or not isinstance(constraint.table, LazyTable):
        raise ValueError("state.constraint has no LazyTable; only one can lack an edge")
    return constraint, constraint.table


def _wanted(constraint: Constraint) -> tuple[np.ndarray, np.ndarray]:
    """The logged misses, of all states under `vmap`: grammar states i32[n] and tokens i32[n]."""
    wanted, count = jax.device_get((constraint.wanted, constraint.num_wanted))
    logged = wanted[np.arange(WANTED) < count[..., None]]
    return logged[:, 0], logged[:, 1]


def _grown(
    grammar: LazyGrammar,
    states: np.ndarray,
    tokens: np.ndarray,
    held: ArrayLike,
    table: LazyTable,
) -> LazyTable:
    """The table, consumed, with these edges; see `LazyGrammar.expand`."""
    mapped = table.edges.ndim > 2
    grown = grammar.expand(states, tokens, held, None if mapped else table)
    return _one_for_each(grown, table) if mapped else grown


def _one_for_each(table: LazyTable, like: LazyTable) -> LazyTable:
    """Copies of the table where `like` has one for each state, under `vmap`."""
    return jax.tree.map(lambda one, many: jnp.broadcast_to(one, many.shape), table, like)
