"""JSON schemas that cover each keyword."""

from __future__ import annotations

from typing import Any

# With these escapes llguidance spells names that are not listed otherwise: test_differences.py.
NO_UNICODE_ESCAPES = {"x-guidance": {"json_allowed_escapes": 'nrbtf\\"'}}


def closed(properties: dict[str, Any], **keywords: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "additionalProperties": False, **keywords}


INT, STR, BOOL = {"type": "integer"}, {"type": "string"}, {"type": "boolean"}

SCHEMAS: dict[str, Any] = {
    # Types.
    "null": {"type": "null"},
    "boolean": BOOL,
    "integer": INT,
    "number": {"type": "number"},
    "string": STR,
    "several types": {"type": ["integer", "null", "string"]},
    # Numbers.
    "integer range": {"type": "integer", "minimum": 5, "maximum": 1234},
    "integer over zero": {"type": "integer", "minimum": -42, "maximum": 1007},
    "integer below zero": {"type": "integer", "minimum": -99, "maximum": -7},
    "integer minimum": {"type": "integer", "minimum": 18},
    "integer negative minimum": {"type": "integer", "minimum": -18},
    "integer maximum": {"type": "integer", "maximum": 250},
    "integer negative maximum": {"type": "integer", "maximum": -250},
    "integer exclusive": {"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 10},
    "integer exclusive fraction": {"type": "integer", "exclusiveMinimum": 0.5, "maximum": 9.5},
    "draft 4 exclusive": {"type": "integer", "minimum": 3, "exclusiveMinimum": True},
    "integer multiple": {"type": "integer", "multipleOf": 7},
    "integer range and multiple": {
        "type": "integer",
        "multipleOf": 5,
        "minimum": -3,
        "maximum": 99,
    },
    "number range": {"type": "number", "minimum": 0, "maximum": 100},
    "number fraction range": {"type": "number", "minimum": 0.25, "maximum": 3.75},
    "number within one": {"type": "number", "minimum": 1.05, "maximum": 1.875},
    "number over zero": {"type": "number", "minimum": -1.5, "maximum": 2.25},
    "number below zero": {"type": "number", "minimum": -20.5, "maximum": -3},
    "number minimum": {"type": "number", "minimum": 2.5},
    "number negative minimum": {"type": "number", "minimum": -2.5},
    "number maximum": {"type": "number", "maximum": 1.5},
    "number maximum zero": {"type": "number", "maximum": 0},
    "number negative maximum": {"type": "number", "maximum": -1.5},
    "number exclusive": {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 3},
    "number exclusive minimum": {"type": "number", "exclusiveMinimum": 0},
    "number exclusive fractions": {
        "type": "number",
        "exclusiveMinimum": 0.5,
        "exclusiveMaximum": 12.34,
    },
    "number multiple": {"type": "number", "multipleOf": 0.5},
    "number multiple hundredths": {"type": "number", "multipleOf": 0.25, "minimum": 0},
    "number multiple tenth": {"type": "number", "multipleOf": 0.1},
    # Strings.
    "minLength": {"type": "string", "minLength": 2},
    "maxLength": {"type": "string", "maxLength": 3},
    "length range": {"type": "string", "minLength": 1, "maxLength": 4},
    "no length": {"type": "string", "maxLength": 0},
    "pattern": {"type": "string", "pattern": "^[a-z]{2}[0-9]+$"},
    "pattern search": {"type": "string", "pattern": "ab"},
    "pattern start": {"type": "string", "pattern": "^x"},
    "pattern alternatives": {"type": "string", "pattern": "^a|b$"},
    "pattern escapes": {"type": "string", "pattern": '^[\\\\"\\n\\t/]+$'},
    "pattern with length": {"type": "string", "pattern": "^(ab)*$", "minLength": 3, "maxLength": 8},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "date-time": {"type": "string", "format": "date-time"},
    "duration": {"type": "string", "format": "duration"},
    "email": {"type": "string", "format": "email"},
    "hostname": {"type": "string", "format": "hostname"},
    "ipv4": {"type": "string", "format": "ipv4"},
    "ipv6": {"type": "string", "format": "ipv6"},
    "uuid": {"type": "string", "format": "uuid"},
    "uri": {"type": "string", "format": "uri"},
    "unknown format": {"type": "string", "format": "unknown"},
    "pattern and format": {"type": "string", "format": "ipv4", "pattern": "^1.*5$"},
    # Constants.
    "const": {"const": "hello"},
    "const escapes": {"const": 'a"b\\c\n\u0001é\u007f'},
    "const number": {"const": -12.5},
    "const object": {"const": {"a": [1, None], "b": {"c": True}}},
    "enum": {"enum": ["red", "green", 3, 4.5, None, True, [1, 2], {"x": 1}]},
    "enum of type": {"type": "string", "enum": ["a", 1, "b"]},
    # Objects.
    "closed object": closed({"name": STR, "age": INT}),
    "required": closed({"name": STR, "age": INT}, required=["name", "age"]),
    "some required": closed({"a": INT, "b": INT, "c": INT, "d": INT}, required=["c"]),
    "required elsewhere": {
        "type": "object",
        "properties": {"b": INT},
        "required": ["a"],
        "additionalProperties": BOOL,
    }
    | NO_UNICODE_ESCAPES,
    "no properties": closed({}),
    "impossible property": closed({"a": INT, "b": False, "c": INT}),
    "additional": {"type": "object", "additionalProperties": INT},
    "additional beside": {
        "type": "object",
        "properties": {"ab": BOOL, "b": BOOL},
        "additionalProperties": INT,
    }
    | NO_UNICODE_ESCAPES,
    "patternProperties": {
        "type": "object",
        "patternProperties": {"^a": INT, "^b": BOOL},
        "additionalProperties": False,
    },
    "patterns and properties": {
        "type": "object",
        "properties": {"ax": {"type": "integer", "minimum": 3}, "c": STR},
        "patternProperties": {"^a": INT},
        "additionalProperties": BOOL,
    }
    | NO_UNICODE_ESCAPES,
    "minProperties": {"type": "object", "additionalProperties": INT, "minProperties": 2},
    "maxProperties": {"type": "object", "additionalProperties": INT, "maxProperties": 2},
    "property count": {
        "type": "object",
        "properties": {"a": INT},
        "required": ["a"],
        "additionalProperties": BOOL,
        "minProperties": 2,
        "maxProperties": 3,
    }
    | NO_UNICODE_ESCAPES,
    "at least one property": closed({"a": INT, "b": INT, "c": INT}, minProperties=1),
    "at most one property": closed({"a": INT, "b": INT, "c": INT}, maxProperties=1),
    "exactly one property": closed({"a": INT, "b": INT}, minProperties=1, maxProperties=1),
    "names with escapes": closed({'q"uote': INT, "new\nline": INT, "é": INT}),
    # Arrays.
    "items": {"type": "array", "items": INT},
    "minItems": {"type": "array", "items": INT, "minItems": 2},
    "maxItems": {"type": "array", "items": BOOL, "maxItems": 3},
    "item count": {"type": "array", "items": STR, "minItems": 1, "maxItems": 2},
    "no items": {"type": "array", "items": False},
    "prefixItems": {"type": "array", "prefixItems": [INT, STR], "items": BOOL},
    "prefix only": {"type": "array", "prefixItems": [INT, STR], "items": False, "minItems": 1},
    "impossible prefix": {"type": "array", "prefixItems": [INT, False], "items": STR},
    "old tuple": {"type": "array", "items": [INT, BOOL], "additionalItems": False},
    "draft 7 tuple": {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "array",
        "items": [INT],
        "additionalItems": {"type": "null"},
    },
    "nested arrays": {"type": "array", "items": {"type": "array", "items": INT, "maxItems": 2}},
    # Combinations.
    "anyOf": {"anyOf": [INT, STR, {"type": "array", "items": INT}]},
    "anyOf objects": {
        "anyOf": [closed({"kind": {"const": "a"}}), closed({"kind": INT, "x": BOOL})]
    },
    "anyOf with siblings": {
        "type": "object",
        "properties": {"a": INT},
        "additionalProperties": False,
        "anyOf": [{"required": ["a"]}, {"properties": {"a": {"minimum": 5}}}],
    },
    "oneOf types": {"oneOf": [INT, STR]},
    "oneOf tagged": {
        "oneOf": [
            closed({"kind": {"const": "a"}, "x": INT}, required=["kind"]),
            closed({"kind": {"const": "b"}, "y": STR}, required=["kind"]),
        ]
    },
    "oneOf coerced": {"oneOf": [INT, {"type": "number"}], "x-guidance": {"coerce_one_of": True}},
    "allOf numbers": {"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 77}]},
    "allOf bounds": {
        "type": "integer",
        "allOf": [{"minimum": 3, "maximum": 77}, {"minimum": -5, "maximum": 40}],
    },
    "allOf multiples": {"allOf": [{"type": "integer", "multipleOf": 4}, {"multipleOf": 6}]},
    "allOf strings": {"type": "string", "allOf": [{"minLength": 2}, {"pattern": "^[ab]*$"}]},
    "allOf lengths": {
        "type": "string",
        "allOf": [{"minLength": 1, "maxLength": 4}, {"minLength": 2, "maxLength": 3}],
    },
    "allOf objects": {
        "allOf": [
            {"type": "object", "properties": {"a": INT}, "required": ["a"]},
            closed({"b": BOOL, "a": {"minimum": 5}}),
        ]
    },
    "allOf arrays": {
        "allOf": [
            {"type": "array", "prefixItems": [INT], "items": STR},
            {"items": {"type": ["integer", "string"]}, "maxItems": 3},
        ]
    },
    "$ref": {"$ref": "#/$defs/point", "$defs": {"point": closed({"x": INT, "y": INT})}},
    "$ref with siblings": {
        "$defs": {"count": {"type": "integer", "minimum": 1}},
        "$ref": "#/$defs/count",
        "maximum": 12,
    },
    "$ref with escapes": {
        "$ref": "#/$defs/a%20b~1c/anyOf/1",
        "$defs": {"a b/c": {"anyOf": [INT, {"type": "boolean"}]}},
    },
    "$ref in definitions": {
        "definitions": {"a": {"$ref": "#/definitions/b"}, "b": {"type": "array", "items": BOOL}},
        "type": "array",
        "items": {"$ref": "#/definitions/a"},
        "maxItems": 2,
    },
    # How JSON is written.
    "compact": closed({"a": INT, "b": STR}) | {"x-guidance": {"whitespace_flexible": False}},
    "whitespace pattern": closed({"a": {"type": "array", "items": INT}})
    | {"x-guidance": {"whitespace_pattern": "[ ]{1,2}"}},
    "separators": closed({"a": INT, "b": INT})
    | {
        "x-guidance": {
            "item_separator": " {0,2}, {0,2}",
            "key_separator": ": ?",
            "whitespace_flexible": False,
        }
    },
    "escapes": STR | NO_UNICODE_ESCAPES,
    "lenient": {"type": "string", "format": "odd", "x-guidance": {"lenient": True}},
    "annotations": {
        "title": "t",
        "description": "d",
        "default": 3,
        "examples": [1],
        "type": "null",
    },
    # Something like real use.
    "person": closed(
        {
            "name": {"type": "string", "maxLength": 12},
            "emails": {"type": "array", "items": {"type": "string", "format": "email"}},
            "address": closed(
                {"street": STR, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
                required=["street", "zip"],
            ),
            "role": {"enum": ["admin", "user"]},
            "score": {"type": "number", "minimum": 0, "maximum": 1},
        },
        required=["name", "address"],
    ),
}
