"""Reading a finished search on the host."""

from __future__ import annotations

import numpy as np

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree


def path_tokens(tree: SearchTree, problem: int, node: int) -> list[list[int]]:
    """Token ids of each thought from the root down to a node; reads the device.

    Raises:
      ValueError: there is no such node, as for an answer that is NO_NODE.
    """
    parent = np.asarray(tree.parent[problem])
    tokens = np.asarray(tree.tokens[problem])
    if node != ROOT and (not 0 <= node < parent.size or parent[node] == NO_NODE):
        raise ValueError(f"node is {node}; problem {problem} has no such node")
    thoughts: list[list[int]] = []
    while node != ROOT:
        thoughts.append(tokens[node][tokens[node] != NO_TOKEN].tolist())
        node = int(parent[node])
    return thoughts[::-1]
