"""`dendrite solve` with the embedded model; answers are judged by this file's own arithmetic."""

from __future__ import annotations

import ast
import json
import operator
import re
from fractions import Fraction
from pathlib import Path

import jax
import pytest

from cli.conftest import Dendrite

OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
# The search that all tests here run, so that it is compiled once.
SMALL = ("--breadth", "5", "--proposals", "40")


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """The value of an arithmetic expression in fractions, and the numbers in it, sorted."""
    numbers: list[int] = []

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.Constant):
            assert isinstance(node.value, int)
            numbers.append(node.value)
            return Fraction(node.value)
        assert isinstance(node, ast.BinOp)
        return OPERATORS[type(node.op)](value(node.left), value(node.right))

    return value(ast.parse(expression, mode="eval").body), sorted(numbers)


def test_the_expression_is_right_and_uses_each_number_once(
    dendrite: Dendrite, tmp_path: Path
) -> None:
    page = tmp_path / "tree.html"
    ran = dendrite("solve", "10 5, 6 4", "--json", "--html", str(page), *SMALL)
    assert (ran.code, ran.err) == (0, "")
    (line,) = ran.out.splitlines()
    found = json.loads(line)
    assert evaluate(found["expression"]) == (24, [4, 5, 6, 10])
    assert found["puzzle"] == [4, 5, 6, 10]
    assert found["target"] == 24
    assert len(found["steps"]) == 3
    assert found["steps"][-1].endswith("= 24 (left: 24)")
    assert found["steps"] == found["answers"][0]["lines"]
    expressions = [answer["expression"] for answer in found["answers"]]
    assert expressions[0] == found["expression"]
    assert len(set(expressions)) == len(expressions)
    assert all(evaluate(expression) == (24, [4, 5, 6, 10]) for expression in expressions)
    values = [answer["value"] for answer in found["answers"]]
    assert values == sorted(values, reverse=True)
    # What the search ended on is told too: at most one of each number, as it merges.
    ends = [evaluate(end["expression"])[0] for end in found["ends"]]
    assert len(set(ends)) == len(ends)
    assert [end["solved"] for end in found["ends"]] == [total == 24 for total in ends]
    assert 0 < found["legal_nodes"] <= found["nodes"] <= 3 * 40
    assert found["forks"] >= found["nodes"]
    # The prompt is run once: "Make 24 from …" and two tokens of each kept step.
    assert found["tokens_prefilled"] < found["tokens_not_recomputed"]
    assert found["method"] == "tree_of_thoughts"
    assert found["sizes"] == {"breadth": 5, "proposals": 40}
    assert found["seed"] == 0
    assert re.fullmatch(r"game24 \(embedded, sha256 [0-9a-f]{16}\)", found["model"])
    assert found["options"]["puzzle"] == "10 5, 6 4"
    assert found["environment"]["device"] == jax.devices()[0].device_kind
    assert 0 < found["seconds_without_compilation"] <= found["seconds"]

    (data,) = re.findall(r'id="search">(.*)</script>', page.read_text())
    drawn = json.loads(data)
    assert drawn["title"] == "Make 24 from 4 5 6 10"
    assert len(drawn["nodes"]) == 1 + found["nodes"]
    # The page rings the right ends, and names the search.
    assert [answer["node"] for answer in drawn["answers"]] == [a["node"] for a in found["answers"]]
    about = ("method", "sizes", "seed", "model", "options", "environment")
    assert {name: drawn[name] for name in about} == {name: found[name] for name in about}


@pytest.mark.slow
def test_people_see_the_tree_and_the_summary(dendrite: Dendrite) -> None:
    ran = dendrite("solve", "4 5 6 10", *SMALL)
    assert (ran.code, ran.err) == (0, "dendrite: compiling (once; kept for the next run)\n")
    lines = ran.out.splitlines()
    answers = [line for line in lines if line.endswith(" = 24")]
    *tree, answer = lines[: lines.index(answers[0]) + 1]
    summary = " ".join(lines[lines.index(answers[-1]) + 1 :])
    assert tree[0] == "Make 24 from 4 5 6 10"
    assert all(line.lstrip("│ ").startswith(("├── ", "└── ")) for line in tree[1:])
    assert any("= 24 (left: 24)" in line for line in tree)
    assert answer == answers[0]
    for line in answers:
        assert evaluate(line.removesuffix(" = 24")) == (24, [4, 5, 6, 10])
    for part in ("nodes (", " legal)", " forks", "tokens computed", "not recomputed"):
        assert part in summary
    assert "s without compilation)" in summary


@pytest.mark.slow
def test_nothing_found_is_exit_code_1(dendrite: Dendrite) -> None:
    ran = dendrite("solve", "1 1 1 1", "--json", *SMALL)
    assert ran.code == 1
    found = json.loads(ran.out)
    assert found["expression"] is None
    assert found["steps"] == []
    assert found["answers"] == []
    assert found["ends"]
    assert not any(end["solved"] for end in found["ends"])
    assert found["reason"] == f"{len(found['ends'])} paths ended, none of them on 24"

    shown = dendrite("solve", "1 1 1 1", *SMALL)
    assert shown.code == 1
    assert "no expression found that makes 24" in shown.out.splitlines()
    assert found["reason"] in shown.out.splitlines()
