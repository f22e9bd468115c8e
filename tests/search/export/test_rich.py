"""The drawn tree of a search made by hand."""

from __future__ import annotations

import io
import math

from rich.console import Console

from dendrite_jax.search import ROOT
from dendrite_jax.search.export import Judged, to_rich
from dendrite_jax.search.export.text import SHOWN
from search.export.made import Node, decode, make_result

TITLE = "Make 24 from 4 5 6 10"
BOLD = "\x1b[1;32m"


def draw(
    nodes: list[Node],
    kept: tuple[int, ...] = (),
    answers: tuple[int, ...] = (),
    color: bool = False,
    judged: Judged | None = None,
) -> list[str]:
    """The lines that are printed."""
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=color, color_system="standard" if color else None, width=80
    )
    result = make_result(nodes, answers)
    console.print(
        to_rich(
            result,
            decode=decode,
            title=TITLE,
            judged=judged,
            kept=kept,
            show_value="{:.3f}".format,
        )
    )
    return out.getvalue().splitlines()


def test_children_stand_below_their_parents_the_best_first() -> None:
    nodes = [Node(ROOT, " low\n", 0.25), Node(ROOT, " high", 0.5), Node(1, " child", 1.0)]
    assert draw(nodes) == [
        TITLE,
        "├── low  0.250",  # grown on, so before better ones
        "│   └── child  1.000",
        "└── high  0.500",
    ]


def test_kept_thoughts_come_first_and_are_bold() -> None:
    nodes = [Node(ROOT, "good", 0.9), Node(ROOT, "kept", 0.1), Node(ROOT, "answer", 0.05)]
    _, first, second, third = draw(nodes, kept=(2,), answers=(3,), color=True)
    assert f"{BOLD}kept" in first
    assert f"{BOLD}answer" in second
    assert "good" in third
    assert BOLD not in third


def test_what_a_task_finds_wrong_is_not_bold() -> None:
    nodes = [Node(ROOT, "wrong", 0.9), Node(ROOT, "right", 0.1)]
    lines = draw(nodes, answers=(1,), judged=Judged([2]), color=True)
    assert f"{BOLD}right" in lines[1]
    assert BOLD not in lines[2]


def test_rejected_thoughts_are_left_out() -> None:
    nodes = [Node(ROOT, "legal", 0.5), Node(ROOT, "illegal", -math.inf), Node(2, "below", 1.0)]
    assert draw(nodes) == [TITLE, "└── legal  0.500"]


def test_a_thought_sampled_twice_is_drawn_once_where_it_was_grown() -> None:
    nodes = [Node(ROOT, "same", 0.5), Node(ROOT, "same", 0.5), Node(2, "child", 0.125)]
    assert draw(nodes) == [TITLE, "└── same  0.500", "    └── child  0.125"]


def test_the_worst_of_many_thoughts_are_counted() -> None:
    nodes = [Node(ROOT, f"step {n}", 1 / n) for n in range(1, SHOWN + 4)]
    nodes.append(nodes[-1])
    lines = draw(nodes)
    assert len(lines) == 1 + SHOWN + 1
    assert lines[-1] == "└── … 3 more"
    assert lines[SHOWN] == f"├── step {SHOWN}  {1 / SHOWN:.3f}"


def test_square_brackets_are_text() -> None:
    assert draw([Node(ROOT, "[/x] [red]", 1.0)])[1] == "└── [/x] [red]  1.000"


def test_a_long_path_is_drawn_to_its_end() -> None:
    lines = draw([Node(row, f"t{row}") for row in range(15)])
    assert [line.split()[-2] for line in lines[1:]] == [f"t{row}" for row in range(15)]
