"""The engine state: the cache, and what a branch needs to go on from where it stands."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax.cache import Appended, Cache, CacheConfig, KVPool, KVShape
from dendrite_jax.cache.array_struct import ArrayStruct
from dendrite_jax.cache.resize import fit_slots
from dendrite_jax.cache.state import STALE_BRANCH
from dendrite_jax.engine.constraint import Constraint, GrammarPlace, place_after
from dendrite_jax.engine.keys import check_key
from dendrite_jax.kernels.policy import KernelPolicy


class Model(Protocol):
    """What the engine needs of a model; `models.Decoder` is one, `testing.BigramModel` another."""

    @property
    def dtype(self) -> jnp.dtype: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def hidden_size(self) -> int: ...

    @property
    def kv_shape(self) -> KVShape: ...

    @property
    def policy(self) -> KernelPolicy: ...

    @property
    def max_position(self) -> int | None:
        """Tokens of context that it was made for; None = any number."""
        ...

    def forward(self, pool: KVPool, appended: Appended, tokens: Array) -> tuple[KVPool, Array]: ...

    def unembed(self, hidden: Array) -> Array: ...


@runtime_checkable
class Planner(Protocol):
    """A model that plans how to read block tables; a loop hands it its last plan to go on with."""

    def plan(self, pool: KVPool, table: Array, length: Array, previous: Any) -> Any: ...


class State(ArrayStruct):
    """Everything the engine knows, an immutable pytree; every function on it is pure.

    Donate it to a jitted call, or carry it in a loop, so that the pool is updated in place.
    """

    cache: Cache
    hidden: Array  # [slots, hidden], after the final norm, of the last token of each branch
    key: Array  # u32[slots, 2], the branch's random key; a token draws from (key, its position)
    children: Array  # i32[slots], children that the branch has had, so that each gets its own key
    stale: Array  # bool[slots], `hidden` is not of the branch's last token; see `rewind`
    constraint: Constraint | None = None  # the branches' grammars; see `constrain`
    plan: Any = None  # inside `generate`, what a `Planner` has made of its lanes' tables


def init(model: Model, config: CacheConfig, *, allow_longer_context: bool = False) -> State:
    """An empty state for a model; keys and values are kept in the model's dtype.

    Args:
      model: the model.
      config: static capacities.
      allow_longer_context: static; lets a branch hold more tokens than the model was made for.

    Raises:
      ValueError: `max_context` is beyond the model's `max_position`.
    """
    limit = model.max_position
    if limit is not None and config.max_context > limit and not allow_longer_context:
        raise ValueError(
            f"max_context is {config.max_context}; the model was made for {limit} tokens "
            "(max_position), and allow_longer_context=True runs it beyond"
        )
    return State(
        cache=kv.init(config, model.kv_shape, dtype=model.dtype, policy=model.policy),
        hidden=jnp.zeros((config.num_slots, model.hidden_size), model.dtype),
        key=jnp.zeros((config.num_slots, 2), jnp.uint32),
        children=jnp.zeros(config.num_slots, jnp.int32),
        stale=jnp.ones(config.num_slots, bool),
    )


def open_branches(state: State, keys: Array) -> tuple[State, Array]:
    """Opens an empty branch for each random key.

    Args:
      state: the engine state; donate it under jit.
      keys: a typed key array [n] (`jax.random.split`), the branches' own randomness.

    Returns:
      The state and i32[n] branch ids, −1 where no slot was left.

    Raises:
      ValueError: `keys` are no typed keys [n].
    """
    check_key(keys, "keys", batched=True)
    cache, ids = kv.open_branches(state.cache, jnp.ones(keys.shape[0], bool))
    stale = state.stale.at[_scatter_slot(state, ids)].set(True, mode="drop")
    return set_keys(state.replace(cache=cache, stale=stale), ids, keys), ids


def set_keys(state: State, branch_ids: Array, keys: Array) -> State:
    """Gives branches i32[n] the random keys [n] (a typed key array), as if newly opened.

    Raises:
      ValueError: `keys` are no typed keys [n].
    """
    check_key(keys, "keys", batched=True)
    slot = _scatter_slot(state, branch_ids)
    return state.replace(
        key=state.key.at[slot].set(jax.random.key_data(keys), mode="drop"),
        children=state.children.at[slot].set(0, mode="drop"),
    )


def fork(state: State, parents: Array, length: Array | None = None) -> tuple[State, Array]:
    """Makes a child of each parent: a table row, the last hidden state and a new random key.

    A child's key depends only on its parent's key and on how many children the parent had before.

    Args:
      state: the engine state; donate it under jit.
      parents: i32[n], a parent may be named several times; negative for an idle lane.
      length: i32[n], how many of its parent's first tokens a child takes; None takes all. A child
        of fewer is stale: `rewind` it before asking what follows. Its grammar is where those tokens
        lead; a child that would pass an edge which a `LazyTable` has forgotten is not made.

    Returns:
      The state and i32[n] child ids, −1 for an idle or refused lane (see `cache.fork`).
    """
    constraint = state.constraint
    parent = jnp.clip(parents, 0, state.cache.num_slots - 1)
    stale = state.stale[parent]
    place = None if constraint is None else constraint.places(parent)
    if length is not None:
        stale |= length < state.cache.length[parent]
        if constraint is not None:
            constraint, place, known = _places_within(state, constraint, parents, length)
            parents = jnp.where(known, parents, kv.NO_BRANCH)
    cache, children = kv.fork(state.cache, parents, length=length)
    slot = _scatter_slot(state, children)
    child_number = state.children[parent] + _rank_among_equals(parents)
    key = jax.vmap(_child_key)(state.key[parent], child_number)
    families = jnp.where(children >= 0, parent, state.cache.num_slots)
    if constraint is not None and place is not None:
        constraint = constraint.put(slot, place)
    child_count = state.children.at[families].add(1, mode="drop").at[slot].set(0, mode="drop")
    return (
        State(
            cache=cache,
            hidden=state.hidden.at[slot].set(state.hidden[parent], mode="drop"),
            key=state.key.at[slot].set(key, mode="drop"),
            children=child_count,
            stale=state.stale.at[slot].set(stale, mode="drop"),
            constraint=constraint,
        ),
        children,
    )


def truncate(state: State, branch_ids: Array, lengths: Array) -> tuple[State, Array]:
    """Gives the last tokens of branches back (see `cache.truncate`).

    A branch that is cut is stale: `rewind` it before asking what follows. Its grammar is where the
    tokens that it keeps lead; where the cut is before the grammar's text, the text begins there.
    Its key stays, and draws from it depend on the position: growing it again draws alike.

    Args:
      state: the engine state; donate it under jit.
      branch_ids: i32[n], each at most once; negative for an idle lane.
      lengths: i32[n], how many of its first tokens a branch keeps.

    Returns:
      The state and bool[n], the branches that hold so many tokens now. One that would pass an edge
      which a `LazyTable` has forgotten is left as it was, and the edge is logged for the host.
    """
    constraint, place = state.constraint, None
    if constraint is not None:
        constraint, place, known = _places_within(state, constraint, branch_ids, lengths)
        branch_ids = jnp.where(known, branch_ids, kv.NO_BRANCH)
    before = state.cache.length[jnp.clip(branch_ids, 0, state.cache.num_slots - 1)]
    cache, cut = kv.truncate(state.cache, branch_ids, lengths)
    slot = jnp.where(cut, branch_ids, state.cache.num_slots)
    if constraint is not None and place is not None:
        constraint = constraint.put(slot, place)
    shorter = jnp.where(lengths < before, slot, state.cache.num_slots)
    stale = state.stale.at[shorter].set(True, mode="drop")
    return state.replace(cache=cache, stale=stale, constraint=constraint), cut


def without_stale(state: State, branch_ids: Array) -> tuple[State, Array]:
    """Branch ids i32[n] for a call that asks what follows: −1 for a stale branch.

    That raises a misuse flag, save where the branch's own flag tells already why it stopped.
    """
    cache = state.cache
    slot = jnp.clip(branch_ids, 0, cache.num_slots - 1)
    stale = (branch_ids == slot) & cache.alive[slot] & state.stale[slot]
    misuse = jnp.where(jnp.any(stale & (cache.error[slot] == 0)), STALE_BRANCH, 0)
    cache = cache.replace(misuse=cache.misuse | misuse)
    return state.replace(cache=cache), jnp.where(stale, kv.NO_BRANCH, branch_ids)


def resize(state: State, config: CacheConfig) -> State:
    """A state of other capacities that holds the same branches under the same ids; host side.

    See `cache.resize`, which says what is refused. The state stays usable.
    """
    slots = config.num_slots
    constraint = state.constraint
    return state.replace(
        cache=kv.resize(state.cache, config),
        hidden=fit_slots(state.hidden, slots),
        key=fit_slots(state.key, slots),
        children=fit_slots(state.children, slots),
        stale=fit_slots(state.stale, slots, True),
        constraint=None if constraint is None else constraint.resize(slots),
    )


def free(state: State, branch_ids: Array) -> State:
    """Gives branches back (see `cache.free`); i32[n], negative for an idle lane."""
    constraint = state.constraint
    if constraint is not None:
        constraint = constraint.release(_scatter_slot(state, branch_ids))
    return state.replace(cache=kv.free(state.cache, branch_ids), constraint=constraint)


def branch_tokens(state: State, branch_ids: Array) -> tuple[Array, Array]:
    """The token ids that branches hold: i32[n, max_context], and their number i32[n].

    Places past a branch's length hold arbitrary ids.
    """
    cache = state.cache
    slot = jnp.maximum(branch_ids, 0)
    rows = jnp.maximum(cache.table[slot], 0)
    tokens = cache.pool.tokens[rows].reshape(branch_ids.shape[0], -1)
    return tokens, jnp.where(branch_ids >= 0, cache.length[slot], 0)


def _places_within(
    state: State, constraint: Constraint, branch_ids: Array, length: Array
) -> tuple[Constraint, GrammarPlace, Array]:
    """Where the first i32[n] tokens of branches leave their grammars; see `place_after`."""
    tokens, held = branch_tokens(state, branch_ids)
    return place_after(constraint, branch_ids, tokens, jnp.clip(length, 0, held), held)


def _scatter_slot(state: State, ids: Array) -> Array:
    """Branch ids as scatter indices: out of range, hence dropped, where there is no branch."""
    return jnp.where(ids >= 0, ids, state.cache.num_slots)


def _rank_among_equals(ids: Array) -> Array:
    """For each of i32[n], how many equal ids stand before it."""
    order = jnp.argsort(ids, stable=True)
    position = jnp.arange(ids.shape[0])
    is_first = jnp.concatenate([jnp.ones(1, bool), ids[order][1:] != ids[order][:-1]])
    rank = position - jax.lax.cummax(jnp.where(is_first, position, 0))
    return jnp.zeros_like(ids).at[order].set(rank)


def _child_key(key: Array, number: Array) -> Array:
    """Key words of a parent's child; positions of tokens use the lower half of the fold range."""
    folded = jax.random.fold_in(
        jax.random.wrap_key_data(key), number.astype(jnp.uint32) + jnp.uint32(2**31)
    )
    return jax.random.key_data(folded)
