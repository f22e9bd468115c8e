"""The JSON of a search made by hand: every number as it was, in JSON that any parser takes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.search import ROOT
from dendrite_jax.search.export import FORMAT, VERSION, to_json
from dendrite_jax.search.outcome import COMPLETE, REJECTED
from search.export.made import Node, decode, make_result

NASTY = '</script>"\\\n\u2028é😀'
NODES = [
    Node(ROOT, "a", 0.1),
    Node(ROOT, NASTY, -math.inf),
    Node(1, "b", -1e-30, terminal=True),
    Node(3, "", math.inf),
]


def strict(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def load(text: str) -> dict[str, Any]:
    return json.loads(text, parse_constant=strict)


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    result = make_result(NODES, answers=[3, 1], problems=2, at_capacity=True)
    codes = np.zeros(result.tree.outcome.shape, int)
    codes[1, :5] = [COMPLETE, COMPLETE, REJECTED, COMPLETE, COMPLETE]
    result = result.replace(tree=result.tree.replace(outcome=jnp.asarray(codes)))
    return load(to_json(result, 1, decode=decode, title=NASTY))


def test_nodes_are_as_in_the_tree(found: dict[str, Any]) -> None:
    assert [(node["id"], node["parent"], node["depth"]) for node in found["nodes"]] == [
        *((0, None, 0), (1, 0, 1), (2, 0, 1), (3, 1, 2), (4, 3, 3)),
    ]
    for row, (node, made) in enumerate(zip(found["nodes"][1:], NODES, strict=True), 1):
        assert node["text"] == made.text
        assert node["tokens"] == [ord(character) for character in made.text]
        assert np.float32(node["value"]) == np.float32(made.value)
        assert np.float32(node["raw_logprob"]) == np.float32(-0.1 * row)
        assert np.float32(node["logprob"]) == np.float32(-0.2 * row)
        assert node["visits"] == row
        assert node["terminal"] is made.terminal
    assert found["nodes"][0]["tokens"] == []


def test_numbers_that_json_lacks_are_strings_and_the_others_short(found: dict[str, Any]) -> None:
    values = [node["value"] for node in found["nodes"]]
    assert values == ["-Infinity", 0.1, "-Infinity", -1e-30, "Infinity"]
    assert [float(value) for value in values] == [-math.inf, 0.1, -math.inf, -1e-30, math.inf]


def test_answers_stand_best_first_with_their_whole_path(found: dict[str, Any]) -> None:
    assert found["answers"] == [
        {"node": 3, "value": -1e-30, "tokens": [ord("a"), ord("b")], "text": "ab"},
        {"node": 1, "value": 0.1, "tokens": [ord("a")], "text": "a"},
    ]


def test_the_rest_says_what_it_is_and_what_it_cost(found: dict[str, Any]) -> None:
    assert (found["format"], found["version"]) == (FORMAT, VERSION) == ("dendrite-search", 1)
    assert found["title"] == NASTY
    assert found["at_capacity"] is True
    assert found["peak_blocks"] == 5
    assert found["cut"] is False
    assert found["frontier"] == []
    assert found["reason"] == "2 of 3 answers were found: 1 rejected by the scorer, room ran out"
    outcomes = ["complete", "complete", "rejected", "complete", "complete"]
    assert [node["outcome"] for node in found["nodes"]] == outcomes
    ledger = found["ledger"]
    assert (ledger["generated"], ledger["reused"], ledger["forks"]) == (2**20, 3, 4)
    assert ledger["prefilled"] == 0


def test_a_node_of_an_empty_problem_is_the_root() -> None:
    empty = load(to_json(make_result(NODES, problems=2), 0, decode=decode))
    assert [node["id"] for node in empty["nodes"]] == [ROOT]
    assert empty["answers"] == []


def test_a_character_split_over_two_nodes_is_not_lost() -> None:
    """The tokens are bytes: alone each half of é is undecodable, on the path they are é."""

    def decode_bytes(ids: Sequence[int]) -> str:
        return bytes(ids).decode(errors="replace")

    first, second = map(chr, "é".encode())
    result = make_result([Node(ROOT, "x" + first), Node(1, second + "y")], answers=[2])
    found = load(to_json(result, decode=decode_bytes))
    assert [node["text"] for node in found["nodes"]] == ["", "x\ufffd", "\ufffdy"]
    assert found["answers"][0]["text"] == "xéy"


def test_a_space_that_is_lost_alone_is_kept() -> None:
    """As SentencePiece decoders do: the first space of a text goes."""

    def decode_words(ids: Sequence[int]) -> str:
        return decode(ids).removeprefix(" ")

    result = make_result([Node(ROOT, " one"), Node(1, " two")])
    found = load(to_json(result, decode=decode_words))
    assert [node["text"] for node in found["nodes"]] == ["", "one", " two"]


@pytest.mark.parametrize("problem", [-1, 2])
def test_a_problem_that_is_not_there_is_refused(problem: int) -> None:
    with pytest.raises(ValueError, match=f"problem is {problem}; the result has 2"):
        to_json(make_result(NODES, problems=2), problem, decode=decode)
