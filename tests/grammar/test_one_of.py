"""oneOf, compiled where no value is in two options, and refused where one may be."""

from __future__ import annotations

import itertools
import json
from typing import Any

import jsonschema
import pytest

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.compiler import byte_automaton
from dendrite_jax.grammar.errors import GrammarError
from dendrite_jax.grammar.grammar import Grammar
from grammar.schema_cases import INT, STR, closed

CAT = closed({"kind": {"const": "cat"}, "lives": INT}, required=["kind", "lives"], title="Cat")
DOG = closed({"kind": {"const": "dog"}, "name": STR}, required=["kind", "name"], title="Dog")


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}


def _compile(schema: Any, depth: int | None = None) -> Dfa:
    return byte_automaton(Grammar.from_json_schema(schema), depth)


def _defined(schema: Any, **definitions: Any) -> Any:
    return {"$defs": definitions, **schema}


# As Pydantic writes a union with a discriminator.
PETS = _defined(
    {
        "discriminator": {
            "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"},
            "propertyName": "kind",
        },
        "oneOf": [_ref("Cat"), _ref("Dog")],
        "title": "Pet",
    },
    Cat=CAT,
    Dog=DOG,
)

# The options are still being read when the oneOf is: they refer back to it.
EXPRESSIONS = _defined(
    _ref("Sum"),
    Sum=closed(
        {"op": {"const": "sum"}, "left": _ref("Expression"), "right": _ref("Expression")},
        required=["op", "left", "right"],
    ),
    Number=closed({"op": {"const": "number"}, "value": INT}, required=["op", "value"]),
    Expression={"oneOf": [_ref("Sum"), _ref("Number")]},
)

# Pairs of schemas without a common value, told apart in different ways.
DISJOINT: list[tuple[Any, Any]] = [
    (INT, STR),
    ({"const": 1}, {"const": 2}),
    ({"const": 1}, {"const": 1.5}),
    ({"const": True}, {"const": 1}),
    ({"enum": ["a", "b"]}, {"enum": ["c", "d", 1]}),
    ({"maximum": 3, "type": "number"}, {"exclusiveMinimum": 3, "type": "integer"}),
    ({"type": "string", "maxLength": 2}, {"type": "string", "minLength": 3}),
    ({"type": "string", "pattern": "^a"}, {"type": "string", "pattern": "^b"}),
    ({"const": "abc"}, {"type": "string", "pattern": "^b"}),
    (
        {"type": "array", "maxItems": 1, "items": INT},
        {"type": "array", "minItems": 2, "items": INT},
    ),
    (
        {"type": "array", "prefixItems": [{"const": "a"}], "items": INT, "minItems": 1},
        {"type": "array", "prefixItems": [{"const": "b"}], "items": INT},
    ),
    (closed({"a": INT}, required=["a"]), closed({"b": INT}, required=["b"])),
    (
        closed({"v": closed({"k": {"const": 1}}, required=["k"])}, required=["v"]),
        closed({"v": closed({"k": {"const": 2}}, required=["k"])}, required=["v"]),
    ),
]
OVERLAPPING: list[tuple[Any, Any]] = [
    (INT, {"type": "number"}),
    ({"const": 1}, {"const": 1.0}),
    ({"type": "number", "maximum": 3}, {"type": "integer", "minimum": 3}),
    ({"type": "string", "maxLength": 2}, {"type": "string", "minLength": 2}),
    ({"type": "string", "pattern": "a"}, {"type": "string", "pattern": "b"}),
    ({"type": "array", "items": INT}, {"type": "array", "items": STR}),
    (closed({"k": {"const": 1}}), closed({"k": {"const": 2}})),
]


def _values() -> list[Any]:
    scalars: list[Any] = [None, True, False, 0, 1, 1.5, 2, 3, 4, "a", "b", "abc", "bc", "c", "ab"]
    arrays: list[Any] = [[], [1], [1, 2], ["a"], ["b"], ["a", 1], ["b", 2]]
    objects: list[Any] = [{"a": 1}, {"b": 1}, {}, {"a": 1, "b": 1}, {"k": 1}, {"v": {"k": 1}}]
    return scalars + arrays + [*objects, {"k": 2}, {"v": {"k": 2}}, {"v": {}}]


def _check(schema: Any, values: list[Any]) -> None:
    """The automaton takes exactly the values that are valid."""
    dfa = _compile(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for value in values:
        # No integer schema takes a number with a point.
        assert dfa.matches(json.dumps(value).encode()) == validator.is_valid(value), value


@pytest.mark.parametrize(("left", "right"), DISJOINT)
@pytest.mark.parametrize("order", [1, -1])
def test_options_are_compared_behind_references(left: Any, right: Any, order: int) -> None:
    options = [left, right][::order]
    _check({"oneOf": options}, _values())
    _check(_defined({"oneOf": [_ref("x"), _ref("y")]}, x=options[0], y=options[1]), _values())
    _check(_defined({"oneOf": [_ref("x"), options[1]]}, x=_ref("z"), z=options[0]), _values())


@pytest.mark.parametrize(("left", "right"), OVERLAPPING)
def test_options_that_overlap_are_refused(left: Any, right: Any) -> None:
    for schema in (
        {"oneOf": [left, right]},
        _defined({"oneOf": [_ref("x"), _ref("y")]}, x=left, y=right),
    ):
        with pytest.raises(GrammarError, match="exclude each other") as caught:
            _compile(schema)
        assert caught.value.place == "#/oneOf"


def test_a_discriminated_union_is_the_same_behind_references() -> None:
    pets = [
        {"kind": kind, **rest}
        for kind in ("cat", "dog", "cow")
        for rest in ({"lives": 9}, {"name": "x"}, {}, {"lives": 9, "name": "x"})
    ]
    _check(PETS, pets)
    inline = _compile({"oneOf": [CAT, DOG]})
    referred = _compile(PETS)
    assert (inline.dense() == referred.dense()).all()
    owner = _defined(
        closed({"pets": {"type": "array", "items": {k: PETS[k] for k in ("oneOf", "title")}}}),
        **PETS["$defs"],
    )
    _check(owner, [{"pets": list(pair)} for pair in itertools.product(pets, repeat=2)])


def test_options_may_refer_back_to_their_union() -> None:
    dfa = _compile(EXPRESSIONS, 1)
    number = {"op": "number", "value": 1}
    total = {"op": "sum", "left": number, "right": number}
    assert dfa.matches(json.dumps(total).encode())
    assert dfa.matches(json.dumps({**total, "left": total}).encode())
    assert not dfa.matches(json.dumps({**total, "left": {"op": "sum", "value": 1}}).encode())


@pytest.mark.parametrize(
    "definitions",
    [
        {"a": _ref("b"), "b": _ref("a")},
        {name: closed({"next": _ref(name)}, required=["next"]) for name in "ab"},
        {"a": {"anyOf": [_ref("b"), INT]}, "b": {"anyOf": [_ref("a"), INT]}},
    ],
)
def test_endless_definitions_are_not_seen_disjoint(definitions: Any) -> None:
    with pytest.raises(GrammarError, match="exclude each other"):
        _compile(_defined({"oneOf": [_ref("a"), _ref("b")]}, **definitions), 2)


def test_a_number_of_properties_is_counted_behind_references() -> None:
    schema = {
        "type": "object",
        "properties": {"a": INT, "b": INT},
        "additionalProperties": _ref("never"),
        "maxProperties": 1,
    }
    _check(_defined(schema, never=False), [{}, {"a": 1}, {"b": 1}, {"a": 1, "b": 1}, {"c": 1}])
