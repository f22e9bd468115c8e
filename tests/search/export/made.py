"""Search results made by hand, whose tokens are the code points of their texts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from dendrite_jax.cache import Ledger
from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import NO_NODE, ROOT, SearchResult, SearchTree

UNUSED_ROWS = 2


class Node(NamedTuple):
    """A node of the tree; its index in the list is its row less one, row 0 being the root."""

    parent: int
    text: str
    value: float = 0.0
    terminal: bool = False


def decode(ids: Sequence[int]) -> str:
    assert NO_TOKEN not in ids
    return "".join(map(chr, ids))


def make_result(
    nodes: Sequence[Node], answers: Sequence[int] = (), problems: int = 1, at_capacity: bool = False
) -> SearchResult:
    """A result whose last problem has these nodes; the others are empty."""
    rows = len(nodes) + 1 + UNUSED_ROWS
    width = max((len(node.text) for node in nodes), default=0) + 1
    tree = SearchTree.empty(problems, rows, width)
    parent, depth, tokens, value, visits, terminal, raw_logprob, logprob = (
        np.array(getattr(tree, field))
        for field in (
            *("parent", "depth", "tokens", "value", "visits", "terminal", "raw_logprob", "logprob"),
        )
    )
    for row, node in enumerate(nodes, 1):
        parent[-1, row] = node.parent
        depth[-1, row] = depth[-1, node.parent] + 1
        tokens[-1, row, : len(node.text)] = [ord(character) for character in node.text]
        value[-1, row] = node.value
        visits[-1, row] = row
        terminal[-1, row] = node.terminal
        raw_logprob[-1, row] = -0.1 * row
        logprob[-1, row] = -0.2 * row
    chosen = np.full((problems, len(answers) + 1), NO_NODE)  # room for one answer more
    chosen[-1, : len(answers)] = answers
    tree = tree.replace(
        parent=jnp.asarray(parent),
        depth=jnp.asarray(depth),
        tokens=jnp.asarray(tokens),
        value=jnp.asarray(value),
        visits=jnp.asarray(visits),
        terminal=jnp.asarray(terminal),
        raw_logprob=jnp.asarray(raw_logprob),
        logprob=jnp.asarray(logprob),
    )
    paths, length = tree.paths(jnp.asarray(chosen), max_depth=max(int(depth.max()), 1))
    values = np.where(chosen == NO_NODE, -math.inf, value[:, np.maximum(chosen[-1], ROOT)])
    return SearchResult(
        tree=tree,
        answers=jnp.asarray(chosen),
        values=jnp.asarray(values, jnp.float32),
        tokens=paths,
        length=length,
        frontier=jnp.full((problems, 1), NO_NODE),
        cut=jnp.zeros(problems, bool),
        at_capacity=jnp.full(problems, at_capacity),
        ledger=Ledger.zeros().add(generated=2**20, reused=3, forks=4),
        peak_blocks=jnp.int32(5),
    )
