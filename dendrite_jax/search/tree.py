"""The recorded tree of a search: every thought that was ever sampled, as arrays."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.engine.generate import NO_TOKEN

NO_NODE = -1
"""A parent or an answer that is not there."""
ROOT = 0
"""Node of the prompt; it holds no tokens."""


class SearchTree(struct.PyTreeNode):
    """Nodes of every problem; unused rows have parent NO_NODE, as the root has."""

    parent: Array  # i32[problems, nodes]
    depth: Array  # i32[problems, nodes]
    tokens: Array  # i32[problems, nodes, thought_tokens], NO_TOKEN past the end
    raw_logprob: Array  # f32[problems, nodes], of the node's tokens, under the model itself
    logprob: Array  # f32[problems, nodes], under the distribution that was sampled from
    value: Array  # f32[problems, nodes], the scorer's; −inf where it rejected the thought

    @classmethod
    def empty(cls, problems: int, nodes: int, thought_tokens: int) -> SearchTree:
        """A tree of roots with room for `nodes` nodes a problem, the root included."""
        shape = (problems, nodes)
        return cls(
            parent=jnp.full(shape, NO_NODE, jnp.int32),
            depth=jnp.zeros(shape, jnp.int32),
            tokens=jnp.full((*shape, thought_tokens), NO_TOKEN, jnp.int32),
            raw_logprob=jnp.zeros(shape, jnp.float32),
            logprob=jnp.zeros(shape, jnp.float32),
            value=jnp.full(shape, -jnp.inf, jnp.float32),
        )

    def write(self, first: Array, **rows: Array) -> SearchTree:
        """Writes [problems, n, ...] rows of the named fields at nodes first, first + 1, …"""
        columns = first + jnp.arange(next(iter(rows.values())).shape[1])
        return self.replace(
            **{name: getattr(self, name).at[:, columns].set(row) for name, row in rows.items()}
        )
