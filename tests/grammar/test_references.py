"""References and keywords that mean nothing, against jsonschema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.compiler import byte_automaton
from dendrite_jax.grammar.errors import UnboundedRecursionError
from dendrite_jax.grammar.grammar import Grammar
from grammar.schema_cases import BOOL, INT, STR, closed

HTTP = "http://example.com/schemas/root.json"
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
DRAFT_4 = "http://json-schema.org/draft-04/schema#"
VALUES = [1, "x", True, None, [], [1], [True, "x"], ["x"], {"a": 1}, {"a": "x"}, {"a": True}, {}]

# Every reference leads to the integers, beside strings and booleans where it could go wrong.
REFERENCES: dict[str, Any] = {
    "anchor": {"$ref": "#n", "$defs": {"a": STR, "b": {"$anchor": "n", **INT}}},
    "anchor of a property": closed({"a": {"$anchor": "n", **INT}, "b": {"$ref": "#n"}}),
    "anchors of two resources": {
        "$id": HTTP,
        "prefixItems": [{"$ref": "#n"}, {"$ref": "other.json#n"}],
        "type": "array",
        "items": False,
        "$defs": {
            "a": {"$anchor": "n", **BOOL},
            "b": {"$id": "other.json", "$defs": {"c": {"$anchor": "n", **STR}}},
        },
    },
    "absolute": {"$id": HTTP, "$ref": f"{HTTP}#/$defs/a", "$defs": {"a": INT}},
    "own id": {"$id": HTTP, "$ref": "root.json#/$defs/a", "$defs": {"a": INT}},
    "relative": {"$id": HTTP, "$ref": "../number", "$defs": {"a": {"$id": "../number", **INT}}},
    "relative to a relative id": {
        "$id": HTTP,
        "$ref": "deep/array.json",
        "$defs": {
            "a": {"$id": "deep/array.json", "type": "array", "items": {"$ref": "item.json"}},
            "b": {"$id": "deep/item.json", **INT},
            "c": {"$id": "item.json", **STR},
        },
    },
    "pointer inside a resource": {
        "$id": HTTP,
        "$ref": "other.json",
        "$defs": {
            "a": STR,
            "b": {"$id": "other.json", "$ref": "#/$defs/a", "$defs": {"a": INT}},
        },
    },
    "urn": {"$id": "urn:uuid:1", "$ref": "#/$defs/a", "$defs": {"a": INT}},
    "id without a base": {"$ref": "item", "$defs": {"a": {"$id": "item", **INT}}},
    "no keyword's schema": {
        "$id": HTTP,
        "$ref": "#/components/schemas/a",
        "components": {"schemas": {"a": {"$ref": "b.json"}}},
        "$defs": {"b": {"$id": "x/b.json", **STR}, "c": {"$id": "b.json", **INT}},
    },
    "draft 7 anchor": {
        "$schema": DRAFT_7,
        "allOf": [{"$ref": "#n"}],
        "definitions": {"a": {"$id": "#n", **INT}},
    },
    "draft 4 id": {
        "$schema": DRAFT_4,
        "id": HTTP,
        "allOf": [{"$ref": "item.json"}],
        "definitions": {"a": {"id": "item.json", **INT}},
    },
    "an id in an example": {
        "$id": HTTP,
        "$ref": "item.json",
        "$defs": {"a": {"$id": "item.json", **INT}},
        "examples": [{"$id": "item.json", **STR}],
        "const": 1,
    },
    "a property of the name $id": closed({"$id": STR, "a": {"$ref": "#/properties/b"}, "b": INT}),
}

# A keyword that means nothing, and what it stands beside.
NO_OPS: list[tuple[Any, Any]] = [
    ({"uniqueItems": False}, {"type": "array", "items": INT}),
    ({"uniqueItems": True}, {"type": "array", "items": INT, "maxItems": 1}),
    ({"not": False}, INT),
    ({"if": INT}, STR),
    ({"if": {"minimum": 3}, "then": True, "else": {}}, INT),
    ({"then": False, "else": False}, INT),
    ({"if": True, "else": False}, INT),
    ({"if": False, "then": False}, INT),
    ({"contains": INT, "minContains": 0}, {"type": "array", "items": INT}),
    ({"minContains": 3, "maxContains": 1}, {"type": "array", "items": INT}),
    ({"propertyNames": True}, closed({"a": INT})),
    ({"dependencies": {}}, closed({"a": INT})),
    ({"dependencies": {"a": [], "b": {}}}, closed({"a": INT})),
    ({"dependentRequired": {"a": []}, "dependentSchemas": {"a": True}}, closed({"a": INT})),
    ({"unevaluatedProperties": True}, closed({"a": INT})),
    ({"unevaluatedItems": {}}, {"type": "array", "items": INT}),
    ({"$dynamicAnchor": "n"}, INT),
    ({"$recursiveAnchor": True}, INT),
    ({"title": "T", "discriminator": {"propertyName": "a"}}, INT),
]


def _compile(schema: Any) -> Dfa:
    return byte_automaton(Grammar.from_json_schema(schema))


@pytest.mark.parametrize("name", REFERENCES)
def test_references_lead_where_jsonschema_follows_them(name: str) -> None:
    schema = REFERENCES[name]
    dfa = _compile(schema)
    default = jsonschema.Draft202012Validator
    validator = jsonschema.validators.validator_for(schema, default)(schema)
    valid = [value for value in VALUES if validator.is_valid(value)]
    assert [value for value in VALUES if dfa.matches(json.dumps(value).encode())] == valid
    assert 0 < len(valid) < len(VALUES)


@pytest.mark.parametrize(("keywords", "schema"), NO_OPS)
@pytest.mark.parametrize("first", [False, True])
def test_keywords_that_mean_nothing_change_nothing(keywords: Any, schema: Any, first: bool) -> None:
    both = {**keywords, **schema} if first else {**schema, **keywords}
    with_them, without = _compile(both), _compile(schema)
    assert (with_them.dense() == without.dense()).all()
    assert (with_them.accept == without.accept).all()
    validators = [jsonschema.Draft202012Validator(s) for s in (both, schema)]
    for value in VALUES:
        assert len({validator.is_valid(value) for validator in validators}) == 1


def test_a_property_may_be_forbidden() -> None:
    dfa = _compile(closed({"a": INT, "b": {"not": {}}}))
    assert dfa.matches(b'{"a":1}')
    assert not dfa.matches(b'{"a":1,"b":1}')


def test_names_of_one_definition_are_counted_together() -> None:
    node = {"$anchor": "n", **closed({"left": {"$ref": "#n"}, "right": {"$ref": "#/$defs/node"}})}
    schema = {"$id": HTTP, "$ref": f"{HTTP}#n", "$defs": {"node": node}}
    with pytest.raises(UnboundedRecursionError, match="#/\\$defs/node occurs inside itself"):
        _compile(schema)
    dfa = byte_automaton(Grammar.from_json_schema(schema), 1)
    assert dfa.matches(b'{"left":{},"right":{}}')
    assert not dfa.matches(b'{"left":{"right":{}}}')
