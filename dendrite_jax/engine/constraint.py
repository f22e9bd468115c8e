"""Grammars in the engine: each branch carries the state of its own, one i32 that a fork copies."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.engine.stopping import GRAMMAR_DEAD, RUNNING, STOP_TOKEN
from dendrite_jax.grammar import (
    FREE_STATE,
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


class Constraint(struct.PyTreeNode):
    """The grammars of a state, and where each branch stands in its own.

    A token whose edge a `LazyTable` does not know is not taken: the branch stays as it was, the
    edge is logged, and the host adds it (`LazyGrammar.expand`) and asks for the token again.
    """

    table: CompiledGrammar | LazyTable
    grammar_state: Array  # i32[slots], FREE_STATE where there is no grammar
    wanted: Array  # i32[WANTED, 2], (grammar state, token) of the unknown edges that were met
    num_wanted: Array  # i32[], how many were met; over WANTED when some are not in `wanted`

    def place(self, slot: Array, grammar_state: Array) -> Constraint:
        """Sets the grammar states of slots i32[n]; those out of range are dropped."""
        placed = self.grammar_state.at[slot].set(grammar_state, mode="drop")
        return self.replace(grammar_state=placed)


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
    grammar_state = jnp.full(slots, FREE_STATE, jnp.int32) if held is None else held.grammar_state
    slot = jnp.where(branch_ids >= 0, branch_ids, slots)
    first = jnp.broadcast_to(initial_state(table, grammar_index), branch_ids.shape)
    return state.replace(
        constraint=Constraint(
            table=jax.tree.map(jnp.copy, table),
            grammar_state=grammar_state.at[slot].set(first, mode="drop"),
            wanted=jnp.zeros((WANTED, 2), jnp.int32),
            num_wanted=jnp.int32(0),
        )
    )


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
    # A branch without a grammar has nothing to read, however long its prompt.
    reads = jnp.where((branch_ids >= 0) & (before != FREE_STATE), count, 0)

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
