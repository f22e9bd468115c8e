"""The static shape of a Monte Carlo tree search."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from dendrite_jax.search.checks import check_positive
from dendrite_jax.search.monte_carlo.selection import Puct, Rule


@dataclass(frozen=True)
class SimulationConfig:
    """Static shape of the simulations.

    Attributes:
      num_simulations: walks from the root, most of one search.
      num_children: children that an expansion makes.
      num_expansions: expanded nodes, most of one search; as many as simulations when None.
      tree_expansions: expanded nodes that the tree has room for; as many as one search makes when
        None, a tree that is kept for the next search needs more.
      batch: nodes of one problem that are expanded together.
      virtual_loss: until a node of a batch is expanded, it counts as a visit worth −virtual_loss.
      dead_value: what a node is worth once all its children were rejected.
      rule: chooses children.
    """

    num_simulations: int = 64
    num_children: int = 8
    num_expansions: int | None = None
    tree_expansions: int | None = None
    batch: int = 1
    virtual_loss: float = 1.0
    dead_value: float = 0.0
    rule: Rule = field(default_factory=Puct)

    def __post_init__(self) -> None:
        check_positive(self, "num_simulations", "num_children", "batch")
        given = ("num_expansions", "tree_expansions")
        check_positive(self, *(name for name in given if getattr(self, name) is not None))
        if not 0 <= self.virtual_loss < math.inf:
            raise ValueError(
                f"virtual_loss is {self.virtual_loss}; it must be at least 0 and finite"
            )
        if not math.isfinite(self.dead_value):
            raise ValueError(f"dead_value is {self.dead_value}; it must be finite")

    @property
    def max_expansions(self) -> int:
        """Expansions of one search, at most; the root is expanded without a simulation."""
        return self.num_simulations if self.num_expansions is None else self.num_expansions

    @property
    def num_nodes(self) -> int:
        """Nodes that the tree has room for, the root included."""
        expansions = self.tree_expansions
        return 1 + (expansions or self.max_expansions) * self.num_children


@dataclass(frozen=True)
class MctsConfig(SimulationConfig):
    """Static shape of the search; see `SimulationConfig` for the first fields.

    Attributes:
      inner_children: children that an expansion below the root makes; `num_children` when None.
        Both widths are compiled, and the larger one is run for roots alone.
      max_depth: thoughts on a path, at most; one that deep ends its path as an answer does.
      num_answers: answers that come out.
      rank_by_visits: whether the most visited answers come out rather than the best valued.
    """

    inner_children: int | None = None
    max_depth: int = 8
    num_answers: int = 5
    rank_by_visits: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "max_depth", "num_answers")
        if self.inner_children is not None and not 1 <= self.inner_children <= self.num_children:
            raise ValueError(
                f"inner_children is {self.inner_children}; it must be from 1 to num_children, "
                f"{self.num_children}"
            )

    @property
    def num_slots(self) -> int:
        """Branches that one problem holds at once, its root included."""
        expansions = (self.num_nodes - 1) // self.num_children
        inner = self.inner_children or self.num_children
        return 1 + self.num_children + (expansions - 1) * inner
