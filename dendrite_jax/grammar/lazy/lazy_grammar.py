"""Grammars without a finite table: nodes made on the host when a loop on the device needs them.

A decoding loop runs on the device while every edge that it takes is known. At an unknown edge it
stops, the host asks llguidance and interns the new node and its mask, and the loop goes on. Many
nodes share few masks, and what a search revisits is known.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import llguidance
import numpy as np
from numpy.typing import ArrayLike, NDArray

from dendrite_jax.grammar.compiler import GrammarCompiler, byte_automaton
from dendrite_jax.grammar.errors import GrammarError, TooManyStatesError
from dendrite_jax.grammar.grammar import Grammar, GrammarKind
from dendrite_jax.grammar.lazy.lark_check import check_rules_can_end
from dendrite_jax.grammar.lazy.llguidance_matcher import NO_TEXT_MESSAGE
from dendrite_jax.grammar.table.compiled import DEAD_STATE, DONE_STATE, FREE_STATE, NO_TOKEN
from dendrite_jax.grammar.table.lazy_table import NEXT, NO_EDGE, NODE, PROBES, LazyTable, edge_hash

_SHARED_NODES = (DEAD_STATE, DONE_STATE, FREE_STATE)
_EOS_MASK, _FREE_MASK = 0, 1
# Slots of the hash table per node: at this load a run of PROBES slots is practically never full.
_SLOTS_PER_NODE = 8
# Rows written to the device per call, so that few shapes are traced.
_CHUNK = 64


class LazyGrammar:
    """The known part of one or several grammars' automata, on the host.

    Every grammar has a matcher of its own, so that a failure inside llguidance reaches the
    branches of one grammar only: they go to the dead state.

    Attributes:
        vocab_size: the number of tokens.
        failures: how many edges led to the dead state because llguidance gave up.
    """

    def __init__(
        self,
        compiler: GrammarCompiler,
        grammars: Sequence[Grammar],
        *,
        max_nodes: int = 1 << 16,
        max_masks: int = 1024,
    ) -> None:
        """Starts the grammars; `table.start[i]` is the first state of grammar i.

        Args:
            max_nodes: nodes kept at a time, at least 4, rounded up to a power of two.
            max_masks: different masks kept at a time, at least 2.

        Raises:
            GrammarError: a grammar is invalid or accepts no text.
            TooManyStatesError: `max_nodes` or `max_masks` is below what the first states need.
        """
        if not grammars:
            raise ValueError("grammars is empty; at least one is needed")
        for name, value, least in (
            ("max_nodes", max_nodes, len(_SHARED_NODES) + 1),
            ("max_masks", max_masks, len((_EOS_MASK, _FREE_MASK))),
        ):
            if value < least:
                raise TooManyStatesError(f"{name} is {value}; it must be at least {least}")
        self._matchers = compiler.matchers
        self._eos = np.array(compiler.eos_ids, np.int32)
        self.failures = 0
        max_nodes = 1 << (max_nodes - 1).bit_length()
        words = -(-compiler.vocab_size // 32)
        self._masks = np.zeros((max_masks, words), np.uint32)
        self._mask_id = np.full(max_nodes, _EOS_MASK, np.int32)
        self._edges = np.full((_SLOTS_PER_NODE * max_nodes, 3), NO_EDGE, np.int32)
        self._edge_slots: dict[tuple[int, int], int] = {}
        self._node_matchers: dict[int, llguidance.LLMatcher] = {}
        self._mask_numbers: dict[bytes, int] = {}
        self._reset_free()

        everything = np.zeros(words * 32, bool)
        everything[: compiler.vocab_size] = True
        end_only = np.zeros_like(everything)
        end_only[self._eos] = True
        self._shared_masks = [
            np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)
            for bits in (end_only, everything)
        ]
        self._intern_shared_masks()
        self._roots = [self._add_root(grammar) for grammar in grammars]
        self.vocab_size = compiler.vocab_size

    @property
    def table(self) -> LazyTable:
        """A copy of what is known, on the device; `expand` grows the copies that exist."""
        return LazyTable(
            edges=jnp.array(self._edges),
            token_bitmask=jnp.array(self._masks),
            mask_id=jnp.array(self._mask_id),
            start=jnp.asarray(self._roots, jnp.int32),
            eos_ids=jnp.asarray(self._eos),
            vocab_size=self.vocab_size,
        )

    @property
    def states(self) -> list[int]:
        """The numbers of the nodes kept."""
        return list(self._node_matchers)

    @property
    def nodes(self) -> int:
        """The number of nodes kept."""
        return len(self._node_matchers)

    @property
    def masks(self) -> int:
        """The number of different masks kept."""
        return len(self._mask_numbers)

    def expand(
        self,
        states: ArrayLike,
        tokens: ArrayLike,
        held: ArrayLike | None = None,
        table: LazyTable | None = None,
    ) -> LazyTable:
        """Adds the edges that a stopped loop asked for, and returns a table that has them.

        Args:
            states: i32[n], the states at which `try_accept_token` missed; those that every grammar
                has, such as DEAD_STATE, are ignored.
            tokens: i32[n], the tokens that it missed; NO_TOKEN is ignored.
            held: i32[m], all states that branches hold or may return to. When there is no room,
                nodes that are neither here nor in `states` are forgotten; their numbers are given
                out again, so that only the table that is returned then may be used on.
            table: the table of the loop, which is consumed; a new one is made when None.

        Raises:
            TooManyStatesError: the held states alone fill the table; the message names the knob.
                Nothing has changed.
            ValueError: a state is not one of this object's nodes, so that its loop would never
                go on; nothing has changed.
        """
        wanted = dict.fromkeys(
            pair
            for pair in zip(_ints(states), _ints(tokens), strict=True)
            if pair[0] not in _SHARED_NODES and pair[1] != NO_TOKEN
        )
        for state, _ in wanted:
            if state not in self._node_matchers:
                raise ValueError(
                    f"state {state} is not a node of this LazyGrammar; states of another, or of "
                    "an earlier process, are found again by state_after"
                )
        unknown = [pair for pair in wanted if pair not in self._edge_slots]
        if len(unknown) > len(self._free_nodes) or len(unknown) > len(self._free_masks):
            kept = {*_ints(states), *_ints(states if held is None else held)}
            self._forget_all_but(kept, room=len(unknown))
            table = None
        for state, token in unknown:
            self._add_edge(state, token, self._add_node(state, token))
        if table is None:
            return self.table
        # Edges that another loop asked for first are news to this table too.
        return self._write(table, [self._edge_slots[pair] for pair in wanted])

    def forget(self, held: ArrayLike) -> LazyTable:
        """Drops all nodes but the first ones and those in i32[m] `held`; a table without them."""
        self._forget_all_but(set(_ints(held)), room=0)
        return self.table

    def state_after(self, tokens: Iterable[int], grammar_index: int = 0) -> int:
        """The state after these tokens from the start, for a restored branch.

        Raises:
            GrammarError: the grammar does not allow the tokens.
        """
        state = self._roots[grammar_index]
        for position, token in enumerate(tokens):
            if state == DEAD_STATE or not self._allows(state, token):
                raise GrammarError(f"the grammar does not allow token {token}", f"token {position}")
            if token in self._eos:
                state = DONE_STATE
                continue
            if (state, token) not in self._edge_slots:
                self.expand([state], [token], held=self.states)
            state = int(self._edges[self._edge_slots[state, token], NEXT])
        return state

    def _allows(self, state: int, token: int) -> bool:
        if not 0 <= token < self.vocab_size:
            return False
        word = self._masks[self._mask_id[state], token // 32]
        return bool(word >> np.uint32(token % 32) & np.uint32(1))

    def _add_root(self, grammar: Grammar) -> int:
        _check_productive(grammar)
        matcher = self._matchers.root(grammar)
        mask = self._matchers.mask(matcher)
        if mask is None and not matcher.get_error().startswith(NO_TEXT_MESSAGE):
            raise GrammarError(f"llguidance gave up: {matcher.get_error().splitlines()[0]}")
        if mask is None or (
            np.array_equal(mask, self._shared_masks[_EOS_MASK]) and not matcher.is_accepting()
        ):
            raise GrammarError("the grammar accepts no text that this vocabulary can spell")
        if not self._free_nodes or not self._free_masks:
            raise TooManyStatesError("max_nodes or max_masks is below the number of grammars")
        return self._store(matcher, mask)

    def _add_node(self, state: int, token: int) -> int:
        matcher = self._node_matchers[state].deep_copy()
        mask = self._matchers.mask(matcher) if matcher.consume_token(token) else None
        if mask is None:
            self.failures += 1
            return DEAD_STATE
        return self._store(matcher, mask)

    def _store(self, matcher: llguidance.LLMatcher, mask: NDArray[np.uint32]) -> int:
        node = self._free_nodes.pop()
        self._node_matchers[node] = matcher
        self._mask_id[node] = self._intern_mask(mask)
        return node

    def _intern_mask(self, mask: NDArray[np.uint32]) -> int:
        key = mask.tobytes()
        number = self._mask_numbers.get(key)
        if number is None:
            number = self._mask_numbers[key] = self._free_masks.pop()
            self._masks[number] = mask
        return number

    def _intern_shared_masks(self) -> None:
        for mask in self._shared_masks:
            self._intern_mask(mask)
        self._mask_id[:] = _EOS_MASK
        self._mask_id[FREE_STATE] = _FREE_MASK

    def _add_edge(self, state: int, token: int, target: int) -> None:
        """Puts an edge into the hash table."""
        first = int(edge_hash(np.array([state]), np.array([token]))[0])
        for probe in range(PROBES):
            slot = (first + probe) % len(self._edges)
            if self._edges[slot, NODE] == NO_EDGE:
                self._edges[slot] = state, token, target
                self._edge_slots[state, token] = slot
                return
        raise TooManyStatesError(
            f"the hash table of {len(self._edges)} edges has a full run; raise max_nodes "
            f"(now {len(self._mask_id)})"
        )

    def _reset_free(self) -> None:
        """Marks all numbers free that no node or mask uses; the lowest are given out first."""
        used_nodes = {*_SHARED_NODES, *self._node_matchers}
        used_masks = set(self._mask_numbers.values())
        self._free_nodes = [n for n in reversed(range(len(self._mask_id))) if n not in used_nodes]
        self._free_masks = [n for n in reversed(range(len(self._masks))) if n not in used_masks]

    def _forget_all_but(self, kept: set[int], room: int) -> None:
        """Drops nodes, the edges at them and the masks that only they used."""
        nodes = {n: m for n, m in self._node_matchers.items() if n in kept or n in self._roots}
        used = {_EOS_MASK, _FREE_MASK, *(int(self._mask_id[n]) for n in nodes)}
        for name, needed, limit in (
            ("max_nodes", len(nodes) + len(_SHARED_NODES) + room, len(self._mask_id)),
            ("max_masks", len(used) + room, len(self._masks)),
        ):
            if needed > limit:
                raise TooManyStatesError(f"{needed} are needed at once; {name} is {limit}")
        self._node_matchers = nodes
        self._mask_numbers = {key: n for key, n in self._mask_numbers.items() if n in used}
        self._reset_free()
        survivors = {*_SHARED_NODES, *self._node_matchers}
        edges = [
            (state, token, target)
            for state, token, target in self._edges[list(self._edge_slots.values())].tolist()
            if state in self._node_matchers and target in survivors
        ]
        self._edge_slots = {}
        self._edges[:] = NO_EDGE
        for edge in edges:
            self._add_edge(*edge)

    def _write(self, table: LazyTable, slots: list[int]) -> LazyTable:
        """Copies edges and what they lead to, in chunks of one size (the last row fills up)."""
        nodes = self._edges[slots, NEXT].tolist()
        masks = list(dict.fromkeys(self._mask_id[nodes].tolist()))
        for start in range(0, len(slots), _CHUNK):
            slot = _filled(slots[start : start + _CHUNK])
            node = _filled(nodes[start : start + _CHUNK])
            table = _write_edges(table, slot, self._edges[slot], node, self._mask_id[node])
        for start in range(0, len(masks), _CHUNK):
            mask = _filled(masks[start : start + _CHUNK])
            table = _write_masks(table, mask, self._masks[mask])
        return table


def _check_productive(grammar: Grammar) -> None:
    """Refuses what is invalid, not supported, or requires endless nesting.

    A schema that has any text has one in which no definition occurs inside itself.
    """
    if grammar.kind is GrammarKind.LARK:
        check_rules_can_end(grammar.source)
    else:
        # A language that is too large for a table is not empty.
        with contextlib.suppress(TooManyStatesError):
            byte_automaton(grammar, max_recursion_depth=0)


def _ints(values: ArrayLike) -> list[int]:
    return np.asarray(values, np.int64).reshape(-1).tolist()


def _filled(rows: list[int]) -> NDArray[np.int32]:
    return np.array(rows + rows[-1:] * (_CHUNK - len(rows)), np.int32)


@functools.partial(jax.jit, donate_argnums=0)
def _write_edges(
    table: LazyTable, slots: jax.Array, edges: jax.Array, nodes: jax.Array, mask_ids: jax.Array
) -> LazyTable:
    return table.replace(
        edges=table.edges.at[slots].set(edges), mask_id=table.mask_id.at[nodes].set(mask_ids)
    )


@functools.partial(jax.jit, donate_argnums=0)
def _write_masks(table: LazyTable, numbers: jax.Array, masks: jax.Array) -> LazyTable:
    return table.replace(token_bitmask=table.token_bitmask.at[numbers].set(masks))
