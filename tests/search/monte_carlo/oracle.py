"""Monte Carlo tree search in plain Python and float64, one problem at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from dendrite_jax.search.monte_carlo import Puct, Uct
from dendrite_jax.search.monte_carlo.config import SimulationConfig

MARGIN = 1e-4
"""Scores of two children closer than this may be told apart differently in float32."""


class Doubt(Exception):
    """Float32 could decide otherwise."""


class Child(NamedTuple):
    """What an expansion says of a child; a prior of −inf: there is none."""

    prior: float
    value: float
    terminal: bool
    payload: Any  # whatever its own expansion needs to know


@dataclass
class Node:
    """A node of the tree."""

    number: int
    parent: Node | None
    prior: float
    value: float
    terminal: bool
    payload: Any
    visits: int = 0
    total: float = 0.0
    children: list[Node] = field(default_factory=list)  # those that exist
    made: list[Node] = field(default_factory=list)  # all of them

    @property
    def mean(self) -> float:
        return self.total / max(self.visits, 1)

    def back_up(self, visits: int, value: float) -> None:
        node: Node | None = self
        while node is not None:
            node.visits += visits
            node.total += value
            node = node.parent


Grow = Callable[[Node], tuple[Sequence[Child], bool]]
"""The children of a node, and whether some are missing for want of room."""


@dataclass
class Search:
    """A search and its tree; `run` may be called again after `reroot`."""

    config: SimulationConfig
    grow: Grow
    root: Node
    num_nodes: int = 1
    simulations: int = 0
    expansions: int = 0
    at_capacity: bool = False

    @classmethod
    def of(
        cls,
        config: SimulationConfig,
        grow: Grow,
        payload: Any,
        root_value: float | None = None,
    ) -> Search:
        root = Node(0, None, -math.inf, root_value or 0.0, False, payload)
        if root_value is not None:
            root.visits, root.total = 1, root_value
        return cls(config, grow, root)

    def run(self) -> None:
        self.simulations = self.expansions = 0
        self.at_capacity = False
        going = not self.root.terminal
        while going:
            leaves, going = self._collect()
            room = self._expand(leaves)
            self.at_capacity |= not room
            going &= room and not self.root.terminal

    def reroot(self, action: int) -> dict[int, int]:
        """Keeps what is below a child; the old number of each kept node by its new one."""
        kept = self.root.made[action]
        kept.parent, kept.prior = None, -math.inf
        if kept.visits == 0:
            kept.visits, kept.total = 1, kept.value
        families, queue = [], [kept]
        while queue:
            node = queue.pop()
            if node.made:
                families.append(node.made)
                queue += node.made
        moved = {0: kept.number}
        kept.number = 0
        number = 1
        for family in sorted(families, key=lambda family: family[0].number):
            for node in family:
                moved[number] = node.number
                node.number = number
                number += 1
        self.root, self.num_nodes = kept, number
        return moved

    def nodes(self) -> list[Node]:
        """All nodes that were made, the root first."""
        found = [self.root]
        for node in found:
            found += node.made
        return found

    def _collect(self) -> tuple[list[Node], bool]:
        leaves: list[Node] = []
        config = self.config
        while len(leaves) < config.batch:
            leaf = self._descend()
            is_root = leaf is self.root
            if not is_root and (leaf.visits == 0 or leaf.terminal):
                leaf.back_up(1, leaf.value)
                self.simulations += 1
            elif leaf in leaves:
                break
            else:
                needed = self.num_nodes + (len(leaves) + 1) * config.num_children
                spent = self.expansions >= config.max_expansions
                if spent or needed > config.num_nodes:
                    self.at_capacity |= not spent
                    return leaves, False
                leaves.append(leaf)
                self.expansions += 1
                if is_root:
                    break
                leaf.back_up(1, -self._loss)
                self.simulations += 1
            if self.simulations >= config.num_simulations:
                return leaves, False
        return leaves, True

    @property
    def _loss(self) -> float:
        return self.config.virtual_loss if self.config.batch > 1 else 0.0

    def _expand(self, leaves: Sequence[Node]) -> bool:
        room = True
        for leaf in leaves:
            children, short = self.grow(leaf)
            room &= not short
            numbers = range(self.num_nodes, self.num_nodes + self.config.num_children)
            self.num_nodes += self.config.num_children
            leaf.made = [
                Node(number, leaf, *child) for number, child in zip(numbers, children, strict=True)
            ]
            leaf.children = [node for node in leaf.made if node.prior > -math.inf]
            if not leaf.children:
                leaf.terminal = True
                leaf.value = leaf.value if short else self.config.dead_value
        for leaf in leaves:
            is_root = leaf is self.root
            value = leaf.value
            if leaf.children and not is_root:
                child = pick([node.prior for node in leaf.children], leaf.children)
                child.visits, child.total = 1, child.value
                value = child.value
            if not is_root:
                leaf.back_up(0, value + self._loss)
            elif leaf.children and leaf.visits == 0:
                mean = sum(node.value for node in leaf.children) / len(leaf.children)
                leaf.visits, leaf.total = 1, mean
        return room

    def _descend(self) -> Node:
        node = self.root
        while node.children:
            node = pick(scores(node, self.config), node.children)
        return node


def scores(node: Node, config: SimulationConfig) -> list[float]:
    """The score of each child by the rule of the config."""
    rule, children = config.rule, node.children
    if isinstance(rule, Uct):
        if any(child.visits == 0 for child in children):
            return [child.prior if child.visits == 0 else -math.inf for child in children]
        return [
            child.mean + rule.c * math.sqrt(math.log(node.visits) / child.visits)
            for child in children
        ]
    assert isinstance(rule, Puct)
    mass = sum(math.exp(child.prior) for child in children)
    seen = [child.mean for child in children if child.visits]
    least, greatest = min([node.mean, *seen]), max([node.mean, *seen])
    span = max(greatest - least, 1e-8)
    if seen and span < 1e-3:  # rounding would be scaled up
        raise Doubt
    weight = rule.c_init + math.log((node.visits + rule.c_base + 1) / rule.c_base)
    return [
        ((child.mean if child.visits else least) - least) / span
        + math.sqrt(node.visits) * weight * math.exp(child.prior) / mass / (child.visits + 1)
        for child in children
    ]


def pick(score: Sequence[float], children: Sequence[Node]) -> Node:
    """The child of the highest score, of equals the first."""
    best = max(range(len(score)), key=lambda index: (score[index], -index))
    winner = children[best]
    for value, child in zip(score, children, strict=True):
        same = (child.prior, child.visits, child.total) == (
            winner.prior,
            winner.visits,
            winner.total,
        )
        if child is not winner and not same and score[best] - value < MARGIN:
            raise Doubt
    return winner
