"""A search tree as a `rich` tree."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from rich.markup import escape
from rich.tree import Tree

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import ROOT
from dendrite_jax.tasks.game24.solutions import Snapshot

SHOWN = 8
"""Most children of a node that are drawn, the best first."""


def tree_view(snapshot: Snapshot, decode: Callable[[Sequence[int]], str]) -> Tree:
    """The distinct steps of the first puzzle; kept ones bold, rejected ones left out."""
    tree = snapshot.tree
    parents, values = np.asarray(tree.parent[0]), np.asarray(tree.value[0])
    kept = {*snapshot.kept[0].tolist(), *snapshot.answers[0].tolist()}
    inner = set(parents.tolist())

    def text(node: int) -> str:
        tokens = tree.tokens[0, node]
        return decode(tokens[tokens != NO_TOKEN].tolist()).strip()

    def grow(view: Tree, node: int) -> None:
        children = [
            child for child in np.flatnonzero(parents == node).tolist() if values[child] > -math.inf
        ]
        # A step that was sampled twice is drawn once, where it was kept or grown on.
        children.sort(key=lambda child: (child not in inner, child not in kept, -values[child]))
        drawn: set[str] = set()
        for child in children:
            label = text(child)
            if label in drawn or len(drawn) == SHOWN:
                continue
            drawn.add(label)
            style = "bold green" if child in kept or child in inner else "dim"
            branch = view.add(f"[{style}]{escape(label)}[/]  {math.exp(values[child]):.3f}")
            grow(branch, child)
        hidden = len({text(child) for child in children} - drawn)
        if hidden:
            view.add(f"[dim]… {hidden} more[/]")

    numbers = " ".join(map(str, snapshot.puzzles[0]))
    view = Tree(f"[bold]Make {snapshot.target} from {numbers}[/]")
    grow(view, ROOT)
    return view
