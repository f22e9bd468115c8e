"""Reading a finished search on the host."""

from __future__ import annotations

import numpy as np

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search.tree import ROOT, SearchTree


def path_tokens(tree: SearchTree, problem: int, node: int) -> list[list[int]]:
    """Token ids of each thought from the root down to a node; reads the device."""
    parent = np.asarray(tree.parent[problem])
    tokens = np.asarray(tree.tokens[problem])
    thoughts: list[list[int]] = []
    while node != ROOT:
        thoughts.append(tokens[node][tokens[node] != NO_TOKEN].tolist())
        node = int(parent[node])
    return thoughts[::-1]
