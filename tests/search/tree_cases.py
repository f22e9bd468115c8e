"""Small trees of every search, and the golden file that holds them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dendrite_jax.search import NO_NODE, ROOT
from engine.programs import LANES, start
from search.every_search import model_of, program
from search.programs import CACHE

GOLDEN = Path(__file__).parent / "golden" / "trees.json"
PROMPTS = [[1], [2, 3, 4], [5, 6], [7, 8, 9, 10, 1]]
PROBLEMS = 2
"""Of which the trees are kept; the others stand beside them in the batch."""


def trees_of(name: str) -> list[dict[str, Any]]:
    """What a search finds, a problem each: [node, parent, visits, tokens, value] of every node."""
    state, ids = start(model_of(name), PROMPTS, config=CACHE)
    keys = jax.random.split(jax.random.key(0), LANES)
    _, result = jax.jit(program(name), donate_argnums=0)(state, ids, keys)
    found = jax.device_get(result)
    tree = found.tree
    trees = []
    for problem in range(PROBLEMS):
        used = np.flatnonzero(tree.parent[problem] != NO_NODE)
        tokens = tree.tokens[problem]
        answered = found.answers[problem] != NO_NODE
        trees.append(
            {
                "nodes": [
                    [
                        int(node),
                        int(tree.parent[problem, node]),
                        int(tree.visits[problem, node]),
                        tokens[node][tokens[node] >= 0].tolist(),
                        _number(tree.value[problem, node]),
                    ]
                    for node in used.tolist()
                    if node != ROOT
                ],
                "answers": found.answers[problem][answered].tolist(),
                "values": [_number(value) for value in found.values[problem][answered]],
            }
        )
    return trees


def _number(value: np.floating) -> float | None:
    """None for what was rejected."""
    return round(float(value), 5) if np.isfinite(value) else None


def load_golden() -> dict[str, list[dict[str, Any]]]:
    return json.loads(GOLDEN.read_text())
