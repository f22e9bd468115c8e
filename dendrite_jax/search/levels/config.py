"""What the searches by levels share: the shape and the choices of one, its loop and a level."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache import Ledger
from dendrite_jax.engine import State
from dendrite_jax.search.levels.aggregation import Aggregate
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.select import Select, best
from dendrite_jax.search.session import Session
from dendrite_jax.search.tree import SearchTree


class LevelsConfig(ABC):
    """A search by levels: its static shape, and the choices that make it another than the others.

    A level shares its proposals out among the thoughts kept before, grows and scores them, records
    answers and keeps some thoughts for the next one.
    """

    aggregate: Aggregate = "last"
    """How a path's value comes from those of its thoughts."""
    merge: bool = False
    """Whether thoughts of one level with equal merge keys are one thought."""
    lookahead: int = 0
    """Greedy thoughts that a value looks ahead, but at the last level."""

    @property
    @abstractmethod
    def kept(self) -> int:
        """Thoughts kept at a level, at most."""

    @property
    @abstractmethod
    def proposals(self) -> int:
        """Thoughts sampled at a level."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Levels."""

    @property
    @abstractmethod
    def num_answers(self) -> int:
        """Answers returned, at most."""

    @property
    def num_nodes(self) -> int:
        """Nodes of a full tree, the root included."""
        return 1 + self.depth * self.proposals

    @property
    def num_slots(self) -> int:
        """Branches that one problem holds at once, its root included."""
        return 1 + self.kept + self.proposals + (self.proposals if self.lookahead else 0)

    @abstractmethod
    def share(self, loop: LevelsLoop) -> Array:
        """i32[problems, proposals]: the place in the frontier that each grows from; −1 for none."""

    @abstractmethod
    def keep(self, level: Level, select: Select) -> Array:
        """i32[problems, kept]: which proposals of a level go on; −1 for none."""

    def record(self, loop: LevelsLoop, level: Level) -> tuple[Array, Array]:
        """The `answers` and `values` after a level: here the best ends of paths of all levels."""
        values, answers = best(
            loop.answers.shape[1],
            jnp.concatenate([loop.values, jnp.where(level.ends, level.value, -jnp.inf)], axis=1),
            jnp.concatenate([loop.answers, level.nodes], axis=1),
        )
        return answers, values

    def rank(self, result: SearchResult) -> SearchResult:
        """The result as it comes out; a search that votes does so here."""
        return result


class Level(NamedTuple):
    """What was grown at one level."""

    nodes: Array  # i32[problems, proposals]
    value: Array  # f32[problems, proposals], of the whole path; −inf for no candidate
    ends: Array  # bool[problems, proposals], the thought ends its path
    keys: Array  # a typed key array [problems], for a random choice


class LevelsLoop(struct.PyTreeNode):
    """The search between two levels."""

    session: Session
    tree: SearchTree
    level: Array  # i32[], levels grown
    frontier: Array  # i32[problems, kept], branches kept; NO_BRANCH where there are fewer
    nodes: Array  # i32[problems, kept], their nodes; NO_NODE where there are fewer
    path_value: Array  # f32[problems, kept], their values, aggregated along the path
    answers: Array  # i32[problems, num_answers]
    values: Array  # f32[problems, num_answers]
    at_capacity: Array  # bool[problems]
    key: Array  # u32[problems, 2], words of the problems' random keys
    before: Ledger  # of the session, before the search
    config: LevelsConfig = struct.field(pytree_node=False)

    @property
    def state(self) -> State:
        return self.session.state

    @property
    def searching(self) -> Array:
        """bool[problems]"""
        return (self.level < self.config.depth) & jnp.any(self.frontier >= 0, axis=1)
