"""The statistics of a Monte Carlo tree, as arrays, and their backup."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.search.tree import NO_NODE, ROOT


class Statistics(struct.PyTreeNode):
    """What selection needs to know of every node.

    Children are made together: those of a node stand at first_child, first_child + 1, …, so that
    one slice reads a whole family.
    """

    parent: Array  # i32[problems, nodes], NO_NODE for the root and for unused rows
    first_child: Array  # i32[problems, nodes], NO_NODE where the node is not expanded
    prior_logits: Array  # f32[problems, nodes], among its siblings; −inf: selection never takes it
    value: Array  # f32[problems, nodes], the node's own, backed up when it is visited
    visits: Array  # i32[problems, nodes]
    value_sum: Array  # f32[problems, nodes], of all that was backed up through the node
    terminal: Array  # bool[problems, nodes], the node is never expanded
    num_nodes: Array  # i32[problems], rows in use
    num_children: int = struct.field(pytree_node=False)

    @classmethod
    def empty(
        cls, problems: int, nodes: int, num_children: int, root_value: Array | None = None
    ) -> Statistics:
        """Roots that are not expanded.

        Args:
          problems: trees.
          nodes: rows of each.
          num_children: of every expanded node.
          root_value: f32[problems], with which the roots have been visited once; when None they
            are first visited when they are expanded, and worth the mean of their children.
        """
        shape = (problems, nodes)
        visits = 0 if root_value is None else 1
        value = jnp.zeros(shape, jnp.float32)
        value = value.at[:, ROOT].set(0.0 if root_value is None else root_value)
        return cls(
            parent=jnp.full(shape, NO_NODE, jnp.int32),
            first_child=jnp.full(shape, NO_NODE, jnp.int32),
            prior_logits=jnp.full(shape, -jnp.inf, jnp.float32),
            value=value,
            visits=jnp.zeros(shape, jnp.int32).at[:, ROOT].set(visits),
            value_sum=value,
            terminal=jnp.zeros(shape, bool),
            num_nodes=jnp.ones(problems, jnp.int32),
            num_children=num_children,
        )

    @property
    def problems(self) -> Array:
        """i32[problems, 1], to index rows with."""
        return jnp.arange(self.parent.shape[0])[:, None]

    @property
    def has_room(self) -> Array:
        """Whether one more node can be expanded, bool[problems]."""
        return self.num_nodes + self.num_children <= self.parent.shape[1]

    def or_unused(self, nodes: Array) -> Array:
        """Nodes as scatter indices: out of range, hence dropped, for NO_NODE."""
        return jnp.where(nodes == NO_NODE, self.parent.shape[1], nodes)

    def at(self, field: Array, node: Array) -> Array:
        """A field's entries at nodes i32[problems], of some field [problems, nodes]."""
        return jnp.take_along_axis(field, node[:, None], axis=1)[:, 0]

    def family(self, node: Array) -> Family:
        """Nodes i32[problems] and their children, as a selection rule sees them."""
        first = jnp.maximum(self.at(self.first_child, node), 0)

        def children(field: Array) -> Array:
            def read(row: Array, first: Array) -> Array:
                return jax.lax.dynamic_slice(row, (first,), (self.num_children,))

            return jax.vmap(read)(field, first)

        child_visits = children(self.visits)
        visits = self.at(self.visits, node)
        return Family(
            visits=visits,
            mean_value=self.at(self.value_sum, node) / jnp.maximum(visits, 1),
            value=self.at(self.value, node),
            prior_logits=children(self.prior_logits),
            child_visits=child_visits,
            child_mean_value=children(self.value_sum) / jnp.maximum(child_visits, 1),
        )


class Family(NamedTuple):
    """A node of each problem and its children."""

    visits: Array  # i32[problems], of the node
    mean_value: Array  # f32[problems], of all that was backed up through the node
    value: Array  # f32[problems], the node's own
    prior_logits: Array  # f32[problems, num_children], −inf where there is no child
    child_visits: Array  # i32[problems, num_children]
    child_mean_value: Array  # f32[problems, num_children], 0 where unvisited


def back_up(tree: Statistics, nodes: Array, visits: Array, values: Array) -> Statistics:
    """Adds to nodes and to all their ancestors.

    Args:
      tree: the statistics.
      nodes: i32[problems, n], NO_NODE for none; paths may share nodes.
      visits: i32[problems, n], what to add to the visits.
      values: f32[problems, n], what to add to the sums of values.
    """

    class Climb(NamedTuple):
        node: Array
        visits: Array
        value_sum: Array

    def step(climb: Climb) -> Climb:
        here = tree.or_unused(climb.node)
        above = jnp.take_along_axis(tree.parent, jnp.maximum(climb.node, 0), axis=1)
        return Climb(
            node=jnp.where(climb.node == NO_NODE, NO_NODE, above),
            visits=climb.visits.at[tree.problems, here].add(visits, mode="drop"),
            value_sum=climb.value_sum.at[tree.problems, here].add(values, mode="drop"),
        )

    def climbing(climb: Climb) -> Array:
        return jnp.any(climb.node != NO_NODE)

    end = jax.lax.while_loop(climbing, step, Climb(nodes, tree.visits, tree.value_sum))
    return tree.replace(visits=end.visits, value_sum=end.value_sum)
