"""`dendrite search` with a tiny checkpoint."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cli.conftest import Dendrite
from dendrite_jax.models import load
from dendrite_jax.serving import search_host

# The search that all tests here run, so that it is compiled once.
SIZES = ("--breadth", "2", "--proposals", "4", "--depth", "2", "--thought-tokens", "5")
PROMPT = "The tree"
COMPILES = "dendrite: compiling and running the prompt\n"


@pytest.fixture
def search(dendrite: Dendrite, checkpoint: str) -> Any:
    def run(*more: str) -> Any:
        return dendrite("search", "--model", checkpoint, "--prompt", PROMPT, *SIZES, *more)

    return run


@pytest.mark.slow
def test_the_json_is_the_whole_tree(search: Any, checkpoint: str) -> None:
    ran = search("--json", "--seed", "3")
    assert (ran.code, ran.err) == (0, "")
    (line,) = ran.out.splitlines()
    found = json.loads(line)
    assert found["title"] == PROMPT
    nodes = {node["id"]: node for node in found["nodes"]}
    assert sorted(nodes) == list(range(1 + 2 * 4))
    assert all(0 < len(node["tokens"]) <= 5 for node in found["nodes"][1:])
    assert len({node["parent"] for node in nodes.values() if node["depth"] == 2}) == 2
    assert found["ledger"]["generated"] == sum(len(node["tokens"]) for node in nodes.values())
    assert found["ledger"]["prefilled"] == 0  # the prompt was run before the search
    assert not found["at_capacity"]

    values = [answer["value"] for answer in found["answers"]]
    assert values == sorted(values, reverse=True)
    tokenizer = load(checkpoint).tokenizer
    for answer in found["answers"]:
        node = nodes[answer["node"]]
        assert node["terminal"]
        mean = node["raw_logprob"] / len(node["tokens"])
        np.testing.assert_allclose(answer["value"], mean, rtol=1e-6)
        above = nodes[node["parent"]]["tokens"] if node["depth"] == 2 else []
        assert answer["tokens"] == above + node["tokens"]
        assert answer["text"] == tokenizer.decode(answer["tokens"])
    assert search("--json", "--seed", "3").out == ran.out
    assert search("--json", "--seed", "4").out != ran.out


def test_people_see_the_tree_the_answers_and_the_cost(search: Any) -> None:
    ran = search("--temperature", "0")
    assert (ran.code, ran.err) == (0, COMPILES)
    lines = ran.out.splitlines()
    assert lines[0] == PROMPT
    assert lines[1].startswith("└── ")  # the likeliest tokens are the same four times
    assert "8 nodes, 9 forks, " in lines[-1]
    assert "not recomputed thanks to forks" in lines[-1]


@pytest.mark.slow
def test_a_search_that_finds_nothing_says_so(dendrite: Dendrite, checkpoint: str) -> None:
    sizes = ("--proposals", "2", "--expansions", "2", "--thought-tokens", "3", "--hopeless", "0")
    asked = ("search", "--model", checkpoint, "--prompt", PROMPT, "--method", "tot-dfs", *sizes)
    ran = dendrite(*asked)
    assert (ran.code, ran.err) == (0, COMPILES)
    assert "no answer found: no candidate among 2 thoughts: 2 below the threshold" in ran.out


@pytest.mark.slow
def test_a_search_that_is_cut_says_so(search: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for shown in (True, False):
        clock = itertools.count()  # the limit is over after the first level
        monkeypatch.setattr(search_host.time, "monotonic", lambda clock=clock: float(next(clock)))
        ran = search("--time-limit", "1.5", *([] if shown else ["--json"]))
        assert (ran.code, ran.err if not shown else "") == (0, "")
        if shown:
            assert "no answer found: the search was cut before its end" in ran.out
            assert " ".join(ran.out.split()).endswith("; cut before its end")
        else:
            found = json.loads(ran.out)
            assert found["cut"]
            assert found["reason"].startswith("the search was cut before its end")
            assert len(found["nodes"]) == 1 + 4
            assert len(found["frontier"]) == 2


@pytest.mark.slow
def test_beams_of_tokens_take_a_width_and_a_length(dendrite: Dendrite, checkpoint: str) -> None:
    sizes = ("--method", "beam_search", "--width", "2", "--tokens", "3")
    ran = dendrite("search", "--model", checkpoint, "--prompt", PROMPT, *sizes, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert [len(answer["tokens"]) for answer in found["answers"]] == [3, 3]
    assert all(len(node["tokens"]) == 1 for node in found["nodes"][1:])
    assert found["reason"] is None
    assert not found["cut"]


def test_a_page_is_written(search: Any, tmp_path: Path) -> None:
    page = tmp_path / "tree.html"
    ran = search("--json", "--html", str(page))
    (data,) = re.findall(r'id="search">(.*)</script>', page.read_text())
    assert json.loads(data) == json.loads(ran.out)


@pytest.mark.slow
def test_the_models_own_verdict_can_be_the_score(search: Any) -> None:
    """The log-share of one word against another, so at most 0, and that of the swapped words."""
    found, swapped = (
        json.loads(search("--json", "--temperature", "0", "--verdict", *words).out)["nodes"][1]
        for words in (("a", "b"), ("b", "a"))
    )
    assert found["tokens"] == swapped["tokens"]
    assert math.exp(found["value"]) + math.exp(swapped["value"]) == pytest.approx(1, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["best-of-n", "tot-dfs", "mcts"])
def test_other_searches_go_the_same_way(dendrite: Dendrite, checkpoint: str, method: str) -> None:
    common = ("--prompt", PROMPT, "--depth", "2", "--thought-tokens", "5", "--proposals", "2")
    own = () if method == "best-of-n" else ("--expansions", "3")
    ran = dendrite("search", "--model", checkpoint, "--method", method, *common, *own, "--json")
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    sampled = {"best-of-n": 2 * 2, "tot-dfs": 2 * 2, "mcts": 3 * 2}[method]
    assert len(found["nodes"]) == 1 + sampled
    assert found["answers"]
    assert all(len(answer["tokens"]) > 0 for answer in found["answers"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depth", "0"], "depth is 0; it must be at least 1"),
        (["--thought-tokens", "0"], "max_tokens is 0; it must be at least 1"),
        (["--breadth", "0"], "breadth is 0; it must be at least 1"),
        (["--temperature", "-1"], "sampling.temperature is -1.0; it must be ≥ 0"),
        (["--prompt", ""], "prompt is empty"),
        (["--prompt", "\ud800"], "which is no Unicode character"),
        (["--stop", "\ud800"], r"--stop has '\ud800' at place 0"),
        (["--verdict", "a", "\ud800"], r"--verdict has '\ud800' at place 0"),
        (["--verdict", "a", "a"], "'a' and 'a' begin with the same token"),
        (["--verdict", "", "a"], "no token of ''"),
        (["--html", "nowhere/tree.html"], "folder nowhere does not exist"),
        (["--method", "greedy", "--hopeless", "x"], "'x' is not a valid float"),
        (["--method", "greedy"], "breadth is no size of method 'greedy', which takes none"),
        (["--method", "beam", "--verdict", "a", "b"], "--verdict has no effect on method 'beam'"),
        (["--hopeless", "-1"], "--hopeless has no effect on method 'tree_of_thoughts'"),
        (["--method", "greedy", "--top-k", "3"], "--top-k has no effect on method 'greedy'"),
        (["--method", "guess"], "'--method': 'guess' is not"),
        (["--method", "beam_search"], "--depth has no effect on method 'beam_search'"),
        (["--time-limit", "0"], "0.0 is not above 0 seconds"),
        (["--time-limit", "nan"], "nan is not above 0 seconds"),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(
    search: Any, arguments: list[str], message: str
) -> None:
    ran = search(*arguments)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("dendrite: ")
    assert message in line
