"""The device side of grammars without a finite table: what is known of the automaton so far."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from numpy.typing import NDArray

_IntArray = TypeVar("_IntArray", jax.Array, NDArray[np.integer])

# Slots that a lookup reads; the host never places an edge further from its hash than this.
PROBES = 8

# Columns of an edge.
NODE, TOKEN, NEXT = 0, 1, 2
NO_EDGE = -1


class LazyTable(struct.PyTreeNode):
    """Known nodes and edges as a pytree; a branch's state is the i32 number of a node.

    The numbers DEAD_STATE, DONE_STATE and FREE_STATE mean what they mean in `CompiledGrammar`.

    Attributes:
        edges: i32[slots, 3] open-addressed hash table of (node, token, next node), NO_EDGE in
            empty slots; slots is a power of two.
        token_bitmask: u32[masks, ceil(vocabulary / 32)].
        mask_id: i32[nodes].
        start: i32[grammars].
        eos_ids: i32[number of end-of-sequence tokens].
        vocab_size: the number of tokens (static).
    """

    edges: jax.Array
    token_bitmask: jax.Array
    mask_id: jax.Array
    start: jax.Array
    eos_ids: jax.Array
    vocab_size: int = struct.field(pytree_node=False)


def edge_hash(node: _IntArray, token: _IntArray) -> _IntArray:
    """u32[...]: a well-mixed hash of edges (multiply, xor, shift); numpy and jnp arrays alike."""
    mixed = node.astype(np.uint32) * np.uint32(0x9E3779B1)
    mixed = mixed ^ (token.astype(np.uint32) * np.uint32(0x85EBCA77))
    mixed = (mixed ^ (mixed >> np.uint32(15))) * np.uint32(0x2C1B3C6D)
    return mixed ^ (mixed >> np.uint32(13))


def find_edge(table: LazyTable, node: jax.Array, token: jax.Array) -> jax.Array:
    """i32[...]: the node after `token`, NO_EDGE where it is not known."""
    slots = len(table.edges)
    probe = edge_hash(node, token)[..., None] + jnp.arange(PROBES, dtype=jnp.uint32)
    found = table.edges[probe & jnp.uint32(slots - 1)]
    hit = (found[..., NODE] == node[..., None]) & (found[..., TOKEN] == token[..., None])
    return jnp.max(jnp.where(hit, found[..., NEXT], NO_EDGE), axis=-1)
