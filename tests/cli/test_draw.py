"""The drawn tree of a search made by hand."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from rich.console import Console

from dendrite_jax.cli.draw import SHOWN, tree_view
from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import NO_NODE, ROOT, SearchTree
from dendrite_jax.tasks.game24.solutions import Snapshot

REJECTED = 0.0
BOLD = "\x1b[1;32m"

# Parent, text and value (0: rejected) of the nodes 1, 2, …
Nodes = list[tuple[int, str, float]]


def draw(nodes: Nodes, kept: list[int], color: bool = False) -> list[str]:
    """The lines that are printed; texts are tokens of one code point each."""
    tree = SearchTree.empty(1, len(nodes) + 2, max(len(text) for _, text, _ in nodes) + 1)
    parent, value, tokens = map(np.array, (tree.parent, tree.value, tree.tokens))
    for node, (above, text, probability) in enumerate(nodes, 1):
        parent[0, node] = above
        value[0, node] = math.log(probability) if probability else -math.inf
        tokens[0, node, : len(text)] = [ord(character) for character in text]
    snapshot = Snapshot(
        puzzles=((4, 5, 6, 10),),
        target=24,
        tree=tree.replace(parent=parent, value=value, tokens=tokens),
        kept=np.array([[*kept, NO_NODE]]),
        answers=np.array([[NO_NODE]]),
        values=np.array([[-math.inf]]),
        ledger={},
    )

    def decode(ids: Sequence[int]) -> str:
        assert NO_TOKEN not in ids
        return "".join(map(chr, ids))

    out = io.StringIO()
    console = Console(
        file=out, force_terminal=color, color_system="standard" if color else None, width=80
    )
    console.print(tree_view(snapshot, decode))
    return out.getvalue().splitlines()


def test_children_stand_below_their_parents_the_best_first() -> None:
    nodes = [(ROOT, " low\n", 0.25), (ROOT, " high", 0.5), (1, " child", 1.0)]
    assert draw(nodes, kept=[]) == [
        "Make 24 from 4 5 6 10",
        "├── low  0.250",  # grown on, so before better ones
        "│   └── child  1.000",
        "└── high  0.500",
    ]


def test_kept_steps_come_first_and_are_bold() -> None:
    _, first, second = draw([(ROOT, "good", 0.9), (ROOT, "kept", 0.1)], kept=[2], color=True)
    assert f"{BOLD}kept" in first
    assert "good" in second
    assert BOLD not in second


def test_rejected_steps_are_left_out() -> None:
    nodes = [(ROOT, "legal", 0.5), (ROOT, "illegal", REJECTED), (2, "below", 1.0)]
    assert draw(nodes, kept=[]) == ["Make 24 from 4 5 6 10", "└── legal  0.500"]


def test_a_step_sampled_twice_is_drawn_once_where_it_was_grown() -> None:
    nodes = [(ROOT, "same", 0.5), (ROOT, "same", 0.5), (2, "child", 0.125)]
    assert draw(nodes, kept=[]) == [
        "Make 24 from 4 5 6 10",
        "└── same  0.500",
        "    └── child  0.125",
    ]


def test_the_worst_of_many_steps_are_counted() -> None:
    nodes: Nodes = [(ROOT, f"step {n}", 1 / n) for n in range(1, SHOWN + 4)]
    nodes.append(nodes[-1])
    lines = draw(nodes, kept=[])
    assert len(lines) == 1 + SHOWN + 1
    assert lines[-1] == "└── … 3 more"
    assert lines[SHOWN] == f"├── step {SHOWN}  {1 / SHOWN:.3f}"


def test_square_brackets_are_text() -> None:
    assert draw([(ROOT, "[/x] [red]", 1.0)], kept=[])[1] == "└── [/x] [red]  1.000"
