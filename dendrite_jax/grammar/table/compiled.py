"""Compiled grammars: token automata as arrays, any number of them side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import NDArray

from dendrite_jax.grammar.automata.dfa import DEAD
from dendrite_jax.grammar.errors import TooManyStatesError
from dendrite_jax.grammar.table.token_table import TokenTable

# States that every compiled grammar has. A token outside the grammar leads to DEAD_STATE, an
# end-of-sequence token that the grammar allows to DONE_STATE; a branch without a grammar is FREE.
DEAD_STATE, DONE_STATE, FREE_STATE = 0, 1, 2
_SHARED_STATES = 3

# The class of the end-of-sequence tokens.
EOS_CLASS = 0
_SHARED_CLASSES = 1

# The masks of the shared states.
EOS_MASK, FREE_MASK = 0, 1
_SHARED_MASKS = 2

NO_TOKEN = -1
_SMALLEST_BUCKET = 16
_WORD_BITS = 32


class CompiledGrammar(struct.PyTreeNode):
    """Token automata as a pytree of arrays; a branch's state is one i32 that indexes its rows.

    Grammars that were stacked share the arrays: a state belongs to one grammar, so the state alone
    says which. All sizes are padded to buckets, and padding rows are dead, so that grammars of
    similar size share one trace of the functions that use them.

    Attributes:
        next_state: i32[states, classes].
        token_class: i32[grammars, vocabulary], the column of `next_state` for each token.
        grammar_id: i32[states], the row of `token_class` that a state uses.
        token_bitmask: u32[masks, ceil(vocabulary / 32)], bit t % 32 of word t // 32 is token t.
        mask_id: i32[states], the row of `token_bitmask` that a state allows.
        forced_token: i32[states], the only token that a state allows, or NO_TOKEN.
        start: i32[grammars], each grammar's first state, DEAD_STATE in padding.
        vocab_size: the number of tokens (static).
    """

    next_state: jax.Array
    token_class: jax.Array
    grammar_id: jax.Array
    token_bitmask: jax.Array
    mask_id: jax.Array
    forced_token: jax.Array
    start: jax.Array
    vocab_size: int = struct.field(pytree_node=False)

    @property
    def num_grammars(self) -> int:
        """How many grammars were stacked, padding left out; read on the host."""
        return int(np.count_nonzero(np.asarray(self.start) != DEAD_STATE))

    @property
    def nbytes(self) -> int:
        """The size of all arrays together, in bytes."""
        return sum(leaf.nbytes for leaf in jax.tree.leaves(self))


def bucket(size: int, smallest: int = _SMALLEST_BUCKET) -> int:
    """The smallest of 16, 24, 32, 48, 64, 96 … (for `smallest` 16) that is at least `size`."""
    power = smallest
    while power < size:
        power *= 2
    return power * 3 // 4 if power > smallest and size <= power * 3 // 4 else power


def pack(table: TokenTable, eos_ids: Sequence[int], max_bytes: int) -> CompiledGrammar:
    """One grammar's arrays from its token automaton.

    Raises:
        TooManyStatesError: the masks need more than `max_bytes`.
    """
    states, classes = table.next_state.shape
    vocab_size = len(table.token_class)
    next_state = np.full((states + _SHARED_STATES, classes + _SHARED_CLASSES), DEAD_STATE, np.int32)
    own = next_state[_SHARED_STATES:]
    own[:, _SHARED_CLASSES:] = np.where(
        table.next_state == DEAD, DEAD_STATE, table.next_state + _SHARED_STATES
    )
    own[:, EOS_CLASS] = np.where(table.accept, DONE_STATE, DEAD_STATE)
    next_state[DONE_STATE, EOS_CLASS] = DONE_STATE
    token_class = table.token_class + _SHARED_CLASSES
    token_class[list(eos_ids)] = EOS_CLASS

    # The allowed classes of each state, then one mask for each different set of them.
    allowed = own != DEAD_STATE
    _, first, own_mask = np.unique(
        np.packbits(allowed, axis=1), axis=0, return_index=True, return_inverse=True
    )
    mask_bytes = (len(first) + _SHARED_MASKS) * -(-vocab_size // _WORD_BITS) * 4
    if mask_bytes > max_bytes:
        raise TooManyStatesError(f"{len(first)} token masks are over {max_bytes} bytes (max_bytes)")
    eos_only = np.zeros(classes + _SHARED_CLASSES, bool)
    eos_only[EOS_CLASS] = True
    sets = np.vstack([eos_only, np.ones_like(eos_only), allowed[first]])
    mask_id = np.concatenate(
        [[EOS_MASK, EOS_MASK, FREE_MASK], own_mask.reshape(-1) + _SHARED_MASKS]
    )
    arrays = {
        "next_state": next_state,
        "token_class": token_class[None],
        "grammar_id": np.zeros(len(next_state), np.int32),
        "token_bitmask": pack_masks(sets, token_class),
        "mask_id": mask_id,
        "forced_token": _only_tokens(sets, token_class)[mask_id],
        "start": np.array([_SHARED_STATES], np.int32),
    }
    return _padded(arrays, vocab_size)


def stack(grammars: Sequence[CompiledGrammar]) -> CompiledGrammar:
    """Several grammars over one vocabulary as one; grammar i's first state is `start[i]`.

    Raises:
        ValueError: there is no grammar, or the vocabularies differ in size.
    """
    if not grammars:
        raise ValueError("grammars is empty; at least one is needed")
    sizes = {grammar.vocab_size for grammar in grammars}
    if len(sizes) > 1:
        raise ValueError(f"grammars have different vocab_size values: {sorted(sizes)}")
    hosts = [_without_padding(grammar) for grammar in grammars]
    classes = max(host.next_state.shape[1] for host in hosts)
    state_shift = np.cumsum([0] + [len(host.mask_id) - _SHARED_STATES for host in hosts[:-1]])
    mask_shift = np.cumsum([0] + [len(host.token_bitmask) - _SHARED_MASKS for host in hosts[:-1]])
    grammar_shift = np.cumsum([0] + [len(host.start) for host in hosts[:-1]])

    parts: dict[str, list[NDArray[np.generic]]] = {}
    for i, host in enumerate(hosts):
        # The first grammar brings the shared rows; DEAD_STATE fills the classes it does not have.
        states = slice(0 if i == 0 else _SHARED_STATES, None)
        masks = slice(0 if i == 0 else _SHARED_MASKS, None)
        own = host.next_state[states]
        own = np.where(own < _SHARED_STATES, own, own + state_shift[i])
        fill = ((0, 0), (0, classes - own.shape[1]))
        own_mask = host.mask_id[states]
        columns = {
            "next_state": np.pad(own, fill, constant_values=DEAD_STATE),
            "token_class": host.token_class,
            "grammar_id": host.grammar_id[states] + grammar_shift[i],
            "token_bitmask": host.token_bitmask[masks],
            "mask_id": np.where(own_mask < _SHARED_MASKS, own_mask, own_mask + mask_shift[i]),
            "forced_token": host.forced_token[states],
            "start": host.start + state_shift[i],
        }
        for name, column in columns.items():
            parts.setdefault(name, []).append(column)
    arrays = {name: np.concatenate(columns) for name, columns in parts.items()}
    return _padded(arrays, hosts[0].vocab_size)


def pack_masks(sets: NDArray[np.bool_], token_class: NDArray[np.int32]) -> NDArray[np.uint32]:
    """u32[sets, ceil(vocabulary / 32)] from the allowed classes of each set."""
    index = token_class.astype(np.intp)
    words = -(-len(index) // _WORD_BITS)
    packed = np.zeros((len(sets), 4 * words), np.uint8)
    for row, allowed in zip(packed, sets, strict=True):
        octets = np.packbits(np.take(allowed, index), bitorder="little")
        row[: len(octets)] = octets
    return packed.view("<u4").astype(np.uint32, copy=False)


def _only_tokens(sets: NDArray[np.bool_], token_class: NDArray[np.int32]) -> NDArray[np.int32]:
    """For each set of classes its only token, or NO_TOKEN."""
    count = np.bincount(token_class, minlength=sets.shape[1])
    example = np.zeros(sets.shape[1], np.int64)
    example[token_class] = np.arange(len(token_class))
    alone = sets @ count == 1
    only = np.argmax(sets & (count == 1), axis=1)
    return np.where(alone, example[only], NO_TOKEN).astype(np.int32)


def _without_padding(grammar: CompiledGrammar) -> Any:
    """The grammar with NumPy arrays, without the rows that only fill a bucket."""
    host = jax.tree.map(np.asarray, grammar)
    states = np.flatnonzero((host.next_state != DEAD_STATE).any(axis=1))[-1] + 1
    grammars = host.num_grammars
    return host.replace(
        next_state=host.next_state[:states],
        grammar_id=host.grammar_id[:states],
        mask_id=host.mask_id[:states],
        forced_token=host.forced_token[:states],
        token_bitmask=host.token_bitmask[: host.mask_id.max() + 1],
        token_class=host.token_class[:grammars],
        start=host.start[:grammars],
    )


def _padded(arrays: dict[str, NDArray[np.generic]], vocab_size: int) -> CompiledGrammar:
    """Fills every axis but the vocabulary up to its bucket and puts the arrays on the device."""
    states, classes = (bucket(size) for size in arrays["next_state"].shape)
    # A grammar is a row as wide as the vocabulary, so that its buckets are small.
    grammars = bucket(len(arrays["start"]), smallest=1)
    shapes = {
        "next_state": (states, classes),
        "grammar_id": (states,),
        "mask_id": (states,),
        "forced_token": (states,),
        "token_bitmask": (bucket(len(arrays["token_bitmask"])), arrays["token_bitmask"].shape[1]),
        "token_class": (grammars, vocab_size),
        "start": (grammars,),
    }
    fills = {"forced_token": NO_TOKEN}
    padded = {}
    for name, array in arrays.items():
        shape = shapes.get(name, array.shape)
        widths = [(0, new - old) for new, old in zip(shape, array.shape, strict=True)]
        padded[name] = np.pad(array, widths, constant_values=fills.get(name, DEAD_STATE))
    padded["next_state"][FREE_STATE] = FREE_STATE
    return CompiledGrammar(
        **{
            name: jnp.asarray(values, jnp.uint32 if name == "token_bitmask" else jnp.int32)
            for name, values in padded.items()
        },
        vocab_size=vocab_size,
    )
