"""Branching caches for benchmarks and tests: block tables of lanes that share prefixes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dendrite_jax.kernels.blocks import BLOCK_SIZE


@dataclass
class Tree:
    """Tables and lengths of the leaves of a tree whose nodes hold some tokens each."""

    table: np.ndarray  # i32[lanes, max_blocks]
    length: np.ndarray  # i32[lanes]
    num_blocks: int

    def unique_blocks(self) -> set[int]:
        """The blocks that hold a token of some lane."""
        held = -(-self.length // BLOCK_SIZE)
        return {int(b) for row, n in zip(self.table, held, strict=True) for b in row[:n]}

    def padded(self, max_blocks: int, num_blocks: int) -> Tree:
        """The same tree with a wider table and a larger pool."""
        table = np.full((len(self.length), max_blocks), -1, np.int32)
        table[:, : self.table.shape[1]] = self.table
        return Tree(table, self.length, num_blocks)


def levels_tree(nodes: tuple[int, ...], tokens: tuple[int, ...], seed: int = 0) -> Tree:
    """Each level's nodes divided evenly over their parents; fork copies a partly filled block."""
    rng = np.random.default_rng(seed)
    grower = _Grower()
    leaves: list[tuple[tuple[int, ...], int]] = [((), 0)]
    for level, (count, length) in enumerate(zip(nodes, tokens, strict=True)):
        extra = rng.integers(0, 7, size=count) if level else np.zeros(count, int)
        leaves = [
            grower.grow(*leaves[node * len(leaves) // count], length + int(extra[node]))
            for node in range(count)
        ]
    return _finish(leaves, grower.used, rng)


def random_tree(rng: np.random.Generator, lanes: int, max_tokens: int, idle: float = 0.1) -> Tree:
    """Each new lane forks from a random point of a random earlier lane, or starts afresh."""
    grower = _Grower()
    leaves: list[tuple[tuple[int, ...], int]] = []
    for _ in range(lanes):
        blocks: tuple[int, ...] = ()
        length = 0
        if leaves and rng.random() < 0.9:
            blocks, length = leaves[rng.integers(len(leaves))]
            length = int(rng.integers(0, length + 1))
            blocks = blocks[: -(-length // BLOCK_SIZE)]
        leaves.append(grower.grow(blocks, length, int(rng.integers(0, max_tokens + 1))))
    tree = _finish(leaves, grower.used, rng)
    tree.length = np.where(rng.random(lanes) < idle, 0, tree.length).astype(np.int32)
    return tree


def search_tree(nodes: int, root_tokens: int, node_tokens: int, seed: int = 0) -> Tree:
    """A tree grown as by Monte Carlo tree search: each node below a random earlier one.

    Its lanes are the leaves.
    """
    rng = np.random.default_rng(seed)
    grower = _Grower()
    held = [grower.grow((), 0, root_tokens)]
    parents = [int(rng.integers(node)) for node in range(1, nodes)]
    for parent in parents:
        held.append(grower.grow(*held[parent], int(rng.integers(1, 2 * node_tokens))))
    leaves = [node for index, node in enumerate(held) if index not in set(parents)]
    return _finish(leaves, grower.used, rng)


TREES: dict[str, Callable[[], Tree]] = {
    "1,10/4000,400": lambda: levels_tree((1, 10), (4000, 400)),
    "1,64/8192,256": lambda: levels_tree((1, 64), (8192, 256)),
    "1,256/2048,32": lambda: levels_tree((1, 256), (2048, 32)),
    "1,4,16,64/1024,256,128,64": lambda: levels_tree((1, 4, 16, 64), (1024, 256, 128, 64)),
    "search tree of 200": lambda: search_tree(200, 512, 64),
    "64 unshared x 1024": lambda: levels_tree((64,), (1024,)),
    "1,8/300,32": lambda: levels_tree((1, 8), (300, 32)),
    "1 x 4096": lambda: levels_tree((1,), (4096,)),
}
"""Nodes by level / tokens of a node by level."""


class _Grower:
    """Numbers physical blocks as branches grow."""

    def __init__(self) -> None:
        self.used = 0

    def _fresh(self) -> int:
        self.used += 1
        return self.used - 1

    def grow(self, blocks: tuple[int, ...], length: int, more: int) -> tuple[tuple[int, ...], int]:
        """A branch with `more` tokens; a partly filled last block is copied before the write."""
        new = list(blocks)
        if more and length % BLOCK_SIZE:
            new[-1] = self._fresh()
        while len(new) * BLOCK_SIZE < length + more:
            new.append(self._fresh())
        return tuple(new), length + more


def _finish(leaves: list[tuple[tuple[int, ...], int]], used: int, rng: np.random.Generator) -> Tree:
    """Lanes in random order, blocks anywhere in a pool with some to spare."""
    num_blocks = used + 3
    place = rng.permutation(num_blocks)
    width = max(1, max(len(blocks) for blocks, _ in leaves)) + 1
    table = np.full((len(leaves), width), -1, np.int32)
    length = np.zeros(len(leaves), np.int32)
    for row, leaf in enumerate(rng.permutation(len(leaves))):
        blocks, length[row] = leaves[leaf]
        table[row, : len(blocks)] = place[list(blocks)]
    return Tree(table, length, num_blocks)
