"""The recorded tree of a search: every thought that was ever sampled, as arrays."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.engine import NO_TOKEN

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
    merge_key: Array  # i32[problems, nodes], the scorer's; equal for one state or answer
    visits: Array  # i32[problems, nodes], times that the search went through the node
    terminal: Array  # bool[problems, nodes], the node ends its path
    outcome: Array  # i32[problems, nodes], what became of the node; an index of OUTCOME_NAMES

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
            merge_key=jnp.zeros(shape, jnp.int32),
            visits=jnp.zeros(shape, jnp.int32).at[:, ROOT].set(1),
            terminal=jnp.zeros(shape, bool),
            outcome=jnp.zeros(shape, jnp.int32),
        )

    def write(self, first: Array | int, **rows: Array) -> SearchTree:
        """Writes [problems, n, ...] rows of the named fields at nodes first, first + 1, …"""
        columns = first + jnp.arange(next(iter(rows.values())).shape[1])
        return self.replace(
            **{name: getattr(self, name).at[:, columns].set(row) for name, row in rows.items()}
        )

    def paths(self, nodes: Array, max_depth: int) -> tuple[Array, Array]:
        """The tokens on the way from the root to each of the nodes i32[problems, n].

        Args:
          nodes: NO_NODE gives an empty path.
          max_depth: of the deepest node (static).

        Returns:
          i32[problems, n, max_depth · thought_tokens], NO_TOKEN past the end; i32[problems, n],
          how many there are.
        """
        problem = jnp.arange(nodes.shape[0])[:, None]

        def up(node: Array, _: None) -> tuple[Array, Array]:
            here = jnp.maximum(node, ROOT)  # the root has no tokens and no parent
            return self.parent[problem, here], self.tokens[problem, here]

        _, tokens = jax.lax.scan(up, nodes, None, length=max_depth)
        tokens = jnp.moveaxis(tokens[::-1], 0, 2).reshape(*nodes.shape, -1)
        absent = tokens == NO_TOKEN
        order = jnp.argsort(absent, axis=-1, stable=True)
        return jnp.take_along_axis(tokens, order, axis=-1), jnp.sum(~absent, axis=-1)
