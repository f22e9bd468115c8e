"""Grammars in the engine: each branch carries the state of its own, one i32 that a fork copies."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache.array_struct import ArrayStruct
from dendrite_jax.cache.resize import fit_slots
from dendrite_jax.engine.stopping import GRAMMAR_DEAD, RUNNING, STOP_TOKEN
from dendrite_jax.grammar import (
    FREE_STATE,
    NO_GRAMMAR,
    NO_TOKEN,
    CompiledGrammar,
    LazyTable,
    accept_token,
    apply_token_bitmask,
    forced_tokens,
    initial_state,
    is_dead,
    is_terminated,
    try_accept_token,
)

if TYPE_CHECKING:
    from dendrite_jax.engine.state import State

WANTED = 64
"""Unknown edges that are remembered for the host; a branch beyond them asks again later."""


class GrammarPlace(NamedTuple):
    """Where branches stand in their grammars."""

    grammar_state: Array  # i32[n], FREE_STATE where there is no grammar
    grammar_index: Array  # i32[n], which grammar of the table, NO_GRAMMAR where there is none
    text_start: Array  # i32[n], the position of the first token that the grammar reads


_NO_PLACE = GrammarPlace(FREE_STATE, NO_GRAMMAR, 0)  # type: ignore[arg-type]
"""Of a branch without a grammar."""


class Constraint(ArrayStruct):
    """The grammars of a state, and where each branch stands in its own.

    A token whose edge a `LazyTable` does not know is not taken: the branch stays as it was, the
    edge is logged, and the host adds it (`LazyGrammar.expand`) and asks for the token again.
    """

    table: CompiledGrammar | LazyTable
    grammar_state: Array  # i32[slots], FREE_STATE where there is no grammar
    grammar_index: Array  # i32[slots], which grammar of the table, NO_GRAMMAR where there is none
    text_start: Array  # i32[slots], the position of the first token that the grammar reads
    wanted: Array  # i32[WANTED, 2], (grammar state, token) of the unknown edges that were met
    num_wanted: Array  # i32[], how many were met; over WANTED when some are not in `wanted`

    def place(self, slot: Array, grammar_state: Array) -> Constraint:
        """Sets the grammar states of slots i32[n]; those out of range are dropped."""
        placed = self.grammar_state.at[slot].set(grammar_state, mode="drop")
        return self.replace(grammar_state=placed)

    def places(self, slot: Array) -> GrammarPlace:
        """Where the branches of slots i32[n] stand."""
        return GrammarPlace(*(getattr(self, name)[slot] for name in GrammarPlace._fields))

    def put(self, slot: Array, place: GrammarPlace) -> Constraint:
        """Puts slots i32[n] where `places` was; those out of range are dropped."""
        return self.replace(
            **{
                name: getattr(self, name).at[slot].set(value, mode="drop")
                for name, value in place._asdict().items()
            }
        )

    def release(self, slot: Array) -> Constraint:
        """Takes the grammars of slots i32[n] away; those out of range are dropped."""
        return self.put(slot, GrammarPlace(*map(jnp.int32, _NO_PLACE)))

    def resize(self, num_slots: int) -> Constraint:
        """The grammars of so many slots; new ones have none."""
        return self.replace(
            **{
                name: fit_slots(getattr(self, name), num_slots, fill)
                for name, fill in _NO_PLACE._asdict().items()
            }
        )


def constrain(
    state: State,
    branch_ids: Array,
    table: CompiledGrammar | LazyTable | None,
    grammar_index: Array | int = 0,
) -> State:
    """Puts branches under grammars: their next token is the first of a text.

    A state has one table; `grammar.stack` makes one of several grammars. Branches that are under a
    grammar already keep their places, so where there are any, `table` must number their states as
    their own table did: the same one, one that a LazyTable grew into, or a stack that begins with
    it.

    Args:
      state: the engine state; donate it under jit.
      branch_ids: i32[n], negative for an idle lane.
      table: the grammars, copied, so that donating the state leaves the caller's arrays alone; None
        stays with the state's own.
      grammar_index: i32[] or i32[n], which grammar of the table; NO_GRAMMAR frees a branch.

    Raises:
      ValueError: `table` is None and the state has none.
    """
    slots = state.cache.num_slots
    held = state.constraint
    if table is None:
        if held is None:
            raise ValueError("table is None; a state's first constraint needs one")
        table = held.table
    place = GrammarPlace(
        grammar_state=initial_state(table, grammar_index),
        grammar_index=jnp.asarray(grammar_index, jnp.int32),
        text_start=state.cache.length[jnp.maximum(branch_ids, 0)],
    )
    places = GrammarPlace(*(jnp.full(slots, fill, jnp.int32) for fill in _NO_PLACE))
    constraint = Constraint(
        table=jax.tree.map(jnp.copy, table),
        wanted=jnp.zeros((WANTED, 2), jnp.int32),
        num_wanted=jnp.int32(0),
        **(places if held is None else held.places(jnp.arange(slots)))._asdict(),
    )
    slot = jnp.where(branch_ids >= 0, branch_ids, slots)
    return state.replace(constraint=constraint.put(slot, place))


def with_table(state: State, table: CompiledGrammar | LazyTable) -> State:
    """A constrained state over the table that its own grew into; the log of misses is empty."""
    constraint = state.constraint
    if constraint is None:
        raise ValueError("constraint is None; `constrain` gives a state its first table")
    num_wanted = jnp.zeros_like(constraint.num_wanted)  # one a state, under vmap
    return state.replace(constraint=constraint.replace(table=table, num_wanted=num_wanted))


def mask_logits(state: State, branch_ids: Array, logits: Array) -> Array:
    """f32[lanes, vocab]: −inf for a token that a lane's grammar does not allow.

    Log-probabilities do as well as logits. Without a constraint they are returned as they are.
    """
    held = state.constraint
    if held is None:
        return logits
    return apply_token_bitmask(logits, held.table, _lane_states(held, branch_ids))


def has_ended(state: State, branch_ids: Array) -> Array:
    """bool[lanes]: whether the text of a lane's grammar is complete, so that nothing follows."""
    held = state.constraint
    if held is None:
        return jnp.zeros(branch_ids.shape, bool)
    return is_terminated(_lane_states(held, branch_ids))


def ends_text(state: State, branch_ids: Array, tokens: Array) -> Array:
    """bool[lanes]: whether the token i32[lanes] would end the text of its lane's grammar."""
    held = state.constraint
    if held is None:
        return jnp.zeros(tokens.shape, bool)
    after, _ = try_accept_token(held.table, _lane_states(held, branch_ids), tokens)
    return is_terminated(after)


def forced_after(state: State, branch_ids: Array, tokens: Array, limit: int) -> tuple[Array, Array]:
    """A token of each lane, and those that its grammar leaves no choice about after it.

    Args:
      state: the engine state.
      branch_ids: i32[lanes], negative for an idle lane.
      tokens: i32[lanes].
      limit: the most tokens that may follow (static).

    Returns:
      i32[lanes, n], n is 1 + limit, or 1 where no grammar can tell; and how many of a lane's are
      real, i32[lanes].
    """
    held = state.constraint
    count = jnp.ones_like(tokens)
    if limit == 0 or held is None or isinstance(held.table, LazyTable):
        return tokens[:, None], count
    after = accept_token(held.table, _lane_states(held, branch_ids), tokens)
    forced, _ = forced_tokens(held.table, after, limit)
    count += jnp.sum(forced != NO_TOKEN, axis=1)
    return jnp.concatenate([tokens[:, None], jnp.maximum(forced, 0)], axis=1), count


def is_unknown(state: State, branch_ids: Array, tokens: Array) -> Array:
    """bool[lanes]: whether the host must add an edge before the lane can take its token."""
    held = state.constraint
    if held is None:
        return jnp.zeros(tokens.shape, bool)
    _, miss = try_accept_token(held.table, _lane_states(held, branch_ids), tokens)
    return miss


def finish_reason(state: State, branch_ids: Array) -> Array:
    """i32[lanes]: why a lane's grammar ends it (STOP_TOKEN, GRAMMAR_DEAD), or RUNNING."""
    held = state.constraint
    if held is None:
        return jnp.full(branch_ids.shape, RUNNING, jnp.int32)
    grammar_state = _lane_states(held, branch_ids)
    reason = jnp.where(is_terminated(grammar_state), STOP_TOKEN, RUNNING)
    return jnp.where(is_dead(grammar_state), GRAMMAR_DEAD, reason).astype(jnp.int32)


def accept_tokens(
    constraint: Constraint, branch_ids: Array, tokens: Array, count: Array
) -> tuple[Constraint, Array, Array]:
    """Reads each lane's tokens with its grammar.

    Args:
      constraint: the constraint.
      branch_ids: i32[lanes], negative for an idle lane.
      tokens: i32[lanes, length].
      count: i32[lanes], how many of a lane's tokens are real.

    Returns:
      The constraint, changed in its log of misses only; the grammar states i32[lanes] after the
      tokens; and bool[lanes], where an unknown edge keeps them from being read.
    """
    before = _lane_states(constraint, branch_ids)
    return _read_tokens(constraint, before, tokens, jnp.where(branch_ids >= 0, count, 0))


def place_after(
    constraint: Constraint, branch_ids: Array, tokens: Array, length: Array, held: Array
) -> tuple[Constraint, GrammarPlace, Array]:
    """Where the first tokens of branches leave their grammars.

    Args:
      constraint: the constraint.
      branch_ids: i32[n], negative for an idle lane.
      tokens: i32[n, max_context], what the branches hold.
      length: i32[n], how many tokens are kept.
      held: i32[n], how many there are.

    Returns:
      The constraint, changed in its log of misses only; the places after `length` tokens; and
      bool[n], whether the place is known: not where a `LazyTable` has lost an edge on the way.
    """
    now = constraint.places(jnp.clip(branch_ids, 0, constraint.grammar_state.shape[0] - 1))
    first = initial_state(constraint.table, now.grammar_index)
    text_start = jnp.minimum(now.text_start, length)
    cut = (branch_ids >= 0) & (length < held)
    column = jnp.minimum(text_start[:, None] + jnp.arange(tokens.shape[1]), tokens.shape[1] - 1)
    text = jnp.take_along_axis(tokens, column, axis=1)
    count = jnp.where(cut, length - text_start, 0)
    constraint, after, missed = _read_tokens(constraint, first, text, count)
    grammar_state = jnp.where(cut, after, now.grammar_state)
    return constraint, now._replace(grammar_state=grammar_state, text_start=text_start), ~missed


def _read_tokens(
    constraint: Constraint, before: Array, tokens: Array, count: Array
) -> tuple[Constraint, Array, Array]:
    """`accept_tokens` from grammar states i32[lanes]."""
    # A branch without a grammar has nothing to read, however long its prompt.
    reads = jnp.where(before != FREE_STATE, count, 0)

    def read(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        index, grammar_state, missed = carry
        token = tokens[:, index]
        after, unknown = try_accept_token(constraint.table, grammar_state, token)
        reading = (index < reads) & (missed == NO_TOKEN)
        missed = jnp.where(reading & unknown, token, missed)
        return index + 1, jnp.where(reading, after, grammar_state), missed

    carry = (jnp.int32(0), before, jnp.full(before.shape, NO_TOKEN, jnp.int32))
    length = tokens.shape[1]
    if length == 1:
        carry = read(carry)
    else:
        end = jnp.minimum(jnp.max(reads), length)
        carry = jax.lax.while_loop(lambda carry: carry[0] < end, read, carry)
    _, after, missed = carry
    return _log_misses(constraint, after, missed), after, missed != NO_TOKEN


def _log_misses(constraint: Constraint, grammar_state: Array, missed: Array) -> Constraint:
    """Remembers the unknown edges (grammar state, missed token) of lanes that met one."""
    if isinstance(constraint.table, CompiledGrammar):
        return constraint
    miss = missed != NO_TOKEN
    place = constraint.num_wanted + jnp.cumsum(miss) - 1
    edges = jnp.stack([grammar_state, missed], axis=1)
    return constraint.replace(
        wanted=constraint.wanted.at[jnp.where(miss, place, WANTED)].set(edges, mode="drop"),
        num_wanted=constraint.num_wanted + jnp.sum(miss),
    )


def _lane_states(constraint: Constraint, branch_ids: Array) -> Array:
    """The grammar states i32[lanes] of branches; FREE_STATE in an idle lane."""
    held = constraint.grammar_state[jnp.maximum(branch_ids, 0)]
    return jnp.where(branch_ids >= 0, held, FREE_STATE)
