"""Recursive schemas: refused without a bound, unrolled with one."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.compiler import GrammarCompiler, byte_automaton
from dendrite_jax.grammar.errors import GrammarError, UnboundedRecursionError
from dendrite_jax.grammar.grammar import Grammar
from grammar.oracle import mismatches, schema_matcher


def _node(children: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"v": {"type": "integer"}, "children": {"type": "array", "items": children}},
        "required": ["v"],
        "additionalProperties": False,
    }


TREE = {"$defs": {"node": _node({"$ref": "#/$defs/node"})}, "$ref": "#/$defs/node"}
LIST: Any = {
    "anyOf": [
        {"type": "null"},
        {"type": "array", "prefixItems": [{"type": "boolean"}, {"$ref": "#"}], "items": False,
         "minItems": 2},
    ]
}  # fmt: skip


def _unrolled_tree(depth: int) -> Any:
    return _node(_unrolled_tree(depth - 1)) if depth else _node(False)


def _unrolled_list(depth: int) -> Any:
    schema = copy.deepcopy(LIST)
    pair = schema["anyOf"][1]
    pair["prefixItems"][1] = _unrolled_list(depth - 1) if depth else False
    return schema


def _compile(schema: Any, depth: int | None) -> Dfa:
    return byte_automaton(Grammar.from_json_schema(schema), depth)


def _same_automaton(left: Dfa, right: Dfa) -> bool:
    return np.array_equal(left.dense(), right.dense()) and np.array_equal(left.accept, right.accept)


@pytest.mark.parametrize("schema", [TREE, LIST, {"type": "object"}, {"type": "array"}, {}, True])
def test_recursion_without_a_bound_is_refused(schema: Any) -> None:
    with pytest.raises(UnboundedRecursionError, match="max_recursion_depth"):
        _compile(schema, None)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_bounded_tree_is_the_unrolled_tree(compiler: GrammarCompiler, depth: int) -> None:
    assert _same_automaton(_compile(TREE, depth), _compile(_unrolled_tree(depth), None))
    bounded = compiler.compile(Grammar.from_json_schema(TREE), max_recursion_depth=depth)
    assert mismatches(bounded, schema_matcher(_unrolled_tree(depth))) == []


@pytest.mark.parametrize("depth", [1, 2])
def test_a_bounded_list_is_the_unrolled_list(compiler: GrammarCompiler, depth: int) -> None:
    # "#" itself is open once more than the first reference to it.
    bounded = compiler.compile(Grammar.from_json_schema(LIST), max_recursion_depth=depth)
    assert mismatches(bounded, schema_matcher(_unrolled_list(depth + 1))) == []


def test_any_value_nests_as_deep_as_the_bound() -> None:
    dfa = _compile(True, 2)
    assert dfa.matches(b'{"a": [{"b": 1}]}') is False
    assert dfa.matches(b'{"a": [1, "x", null]}')
    assert dfa.matches(b"[[1]]")
    assert dfa.matches(b"[[[]]]")
    assert not dfa.matches(b"[[[1]]]")


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
        {
            "type": "object",
            "properties": {"next": {"$ref": "#"}},
            "required": ["next"],
            "additionalProperties": False,
        },
    ],
)
def test_endless_required_recursion_has_no_text(schema: Any) -> None:
    with pytest.raises(GrammarError, match=r"allows no value.*occurs inside itself"):
        _compile(schema, 3)
