"""The tree of a Monte Carlo tree search: one record of what was made and what selection knows."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache import NO_BRANCH
from dendrite_jax.engine.loops import while_any
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


class MctsTree(SearchTree):
    """A search tree, and what selection needs to know of every node.

    Children are made together: those of a node stand at first_child, first_child + 1, …, so that
    one slice reads a whole family. A row of a family that has fewer children stays unused.
    """

    first_child: Array  # i32[problems, nodes], NO_NODE where the node is not expanded
    prior_logits: Array  # f32[problems, nodes], among its siblings; −inf: selection never takes it
    worth: Array  # f32[problems, nodes], the node's own, backed up when it is visited
    worth_sum: Array  # f32[problems, nodes], of all that was backed up through the node
    dead: Array  # bool[problems, nodes], expanded, and no child of it is worth a visit
    branch: Array  # i32[problems, nodes], held for a node that may be expanded; NO_BRANCH for none
    num_nodes: Array  # i32[problems], rows in use or left to a family
    num_children: int = struct.field(pytree_node=False)

    @classmethod
    def of_roots(
        cls,
        problems: int,
        nodes: int,
        num_children: int,
        thought_tokens: int = 0,
        root_worth: Array | None = None,
    ) -> MctsTree:
        """Roots that are not expanded.

        Args:
          problems: trees.
          nodes: rows of each.
          num_children: of every expanded node.
          thought_tokens: most tokens of a node.
          root_worth: f32[problems], with which the roots have been visited once; when None they
            are first visited when they are expanded, and worth the mean of their children.
        """
        shape = (problems, nodes)
        visits = 0 if root_worth is None else 1
        worth = jnp.zeros(shape, jnp.float32)
        worth = worth.at[:, ROOT].set(0.0 if root_worth is None else root_worth)
        plain = SearchTree.empty(problems, nodes, thought_tokens)
        fields = {**vars(plain), "visits": plain.visits.at[:, ROOT].set(visits)}
        return cls(
            **fields,
            first_child=jnp.full(shape, NO_NODE, jnp.int32),
            prior_logits=jnp.full(shape, -jnp.inf, jnp.float32),
            worth=worth,
            worth_sum=worth,
            dead=jnp.zeros(shape, bool),
            branch=jnp.full(shape, NO_BRANCH, jnp.int32),
            num_nodes=jnp.ones(problems, jnp.int32),
            num_children=num_children,
        )

    @property
    def problems(self) -> Array:
        """i32[problems, 1], to index rows with."""
        return jnp.arange(self.parent.shape[0])[:, None]

    @property
    def closed(self) -> Array:
        """bool[problems, nodes], the node is never expanded, or never again."""
        return self.terminal | self.dead

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
            mean_worth=self.at(self.worth_sum, node) / jnp.maximum(visits, 1),
            worth=self.at(self.worth, node),
            prior_logits=children(self.prior_logits),
            child_visits=child_visits,
            child_mean_worth=children(self.worth_sum) / jnp.maximum(child_visits, 1),
        )

    def as_search_tree(self) -> SearchTree:
        """The fields of a search tree alone."""
        return SearchTree(**{name: getattr(self, name) for name in SearchTree.__dataclass_fields__})


class Family(NamedTuple):
    """A node of each problem and its children."""

    visits: Array  # i32[problems], of the node
    mean_worth: Array  # f32[problems], of all that was backed up through the node
    worth: Array  # f32[problems], the node's own
    prior_logits: Array  # f32[problems, num_children], −inf where there is no child
    child_visits: Array  # i32[problems, num_children]
    child_mean_worth: Array  # f32[problems, num_children], 0 where unvisited


def back_up(tree: MctsTree, nodes: Array, visits: Array, worths: Array) -> MctsTree:
    """Adds to nodes and to all their ancestors.

    Args:
      tree: the tree.
      nodes: i32[problems, n], NO_NODE for none; paths may share nodes.
      visits: i32[problems, n], what to add to the visits.
      worths: f32[problems, n], what to add to the sums of worths.
    """

    class Climb(NamedTuple):
        node: Array
        visits: Array
        worth_sum: Array

    def up(climb: Climb) -> Climb:
        here = tree.or_unused(climb.node)
        above = jnp.take_along_axis(tree.parent, jnp.maximum(climb.node, 0), axis=1)
        return Climb(
            node=jnp.where(climb.node == NO_NODE, NO_NODE, above),
            visits=climb.visits.at[tree.problems, here].add(visits, mode="drop"),
            worth_sum=climb.worth_sum.at[tree.problems, here].add(worths, mode="drop"),
        )

    def climbing(climb: Climb) -> Array:
        return jnp.any(climb.node != NO_NODE)

    end = while_any(climbing, up, Climb(nodes, tree.visits, tree.worth_sum))
    return tree.replace(visits=end.visits, worth_sum=end.worth_sum)
