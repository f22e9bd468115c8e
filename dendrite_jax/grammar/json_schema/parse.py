"""Reads a JSON schema, keyword by keyword in their order, into the form of `nodes`.

The semantics are llguidance's: keywords such as anyOf and $ref intersect with what comes before
them, and the property order of the result follows the order of the keywords.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dendrite_jax.grammar.errors import GrammarError
from dendrite_jax.grammar.json_schema.intersect import intersect, normalised
from dendrite_jax.grammar.json_schema.no_ops import UNSUPPORTED, forbids_all, is_no_op
from dendrite_jax.grammar.json_schema.nodes import (
    AnyOf,
    AnyValue,
    Array,
    Boolean,
    Literal,
    Nothing,
    Null,
    Number,
    Object,
    OneOf,
    Ref,
    Schema,
    String,
)
from dendrite_jax.grammar.json_schema.options import SchemaOptions
from dendrite_jax.grammar.json_schema.references import References
from dendrite_jax.grammar.json_schema.type_keywords import TYPES, TypeReader

_APPLICATORS = ("const", "enum", "allOf", "anyOf", "oneOf", "$ref")
_TYPE_KEYWORDS = [
    "type",
    "items",
    "additionalItems",
    "prefixItems",
    "minItems",
    "maxItems",
    "properties",
    "additionalProperties",
    "patternProperties",
    "required",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
]
# Drafts in which "items" may be an array and "prefixItems" is unknown.
_OLD_DRAFTS = ("draft-04", "draft-06", "draft-07", "draft/2019-09")


@dataclasses.dataclass(frozen=True)
class ParsedSchema:
    """A schema and the definitions that it refers to."""

    root: Schema
    definitions: dict[str, Schema]


def parse_schema(schema: Any, options: SchemaOptions) -> ParsedSchema:
    """Reads a schema given as parsed JSON.

    Raises:
        GrammarError: the schema is malformed or uses a keyword that is not supported; `place` is
            the JSON pointer of the subschema.
    """
    reader = _SchemaReader(schema, options)
    return ParsedSchema(reader.read(schema, "#"), reader.definitions)


class _SchemaReader:
    def __init__(self, document: Any, options: SchemaOptions) -> None:
        self.references = References(document)
        self.options = options
        self.definitions: dict[str, Schema] = {}
        self.open: set[str] = set()
        draft = document.get("$schema", "") if isinstance(document, Mapping) else ""
        old_draft = isinstance(draft, str) and any(name in draft for name in _OLD_DRAFTS)
        self.types = TypeReader(self.read, self._meet, options.lenient, old_draft)

    def read(self, schema: Any, place: str) -> Schema:
        """The schema at `place`."""
        if schema is True:
            return AnyValue()
        if schema is False:
            return Nothing("the schema is false")
        if not isinstance(schema, Mapping):
            raise GrammarError(f"a schema is an object or a boolean, not {schema!r}", place)
        if not self.options.lenient:
            refused = [name for name in schema if name in UNSUPPORTED]
            for keyword in refused:
                if not is_no_op(keyword, schema) and not (keyword == "not" and forbids_all(schema)):
                    raise GrammarError(f"keyword {keyword!r} is not supported", place)
        try:
            return self._read_keywords(schema, place)
        except GrammarError as exc:
            if exc.place.startswith("#"):
                raise
            raise type(exc)(
                f"{exc.place}: {exc.reason}" if exc.place else exc.reason, place
            ) from exc

    def _read_keywords(self, schema: Mapping[str, Any], place: str) -> Schema:
        result: Schema = Nothing("not excludes every value") if forbids_all(schema) else AnyValue()
        pending: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _APPLICATORS:
                result = self._meet(result, self._typed(pending, schema, place))
                pending = {}
                result = self._apply(result, keyword, schema, place)
            elif keyword in _TYPE_KEYWORDS:
                pending[keyword] = value
                # Which properties are additional, and which items come after the prefix, depends
                # on keywords that may only follow: their names count now, their schemas then.
                if keyword == "additionalProperties" and "properties" not in pending:
                    self._stand_in(pending, schema, "properties")
                if keyword == "items" and "prefixItems" not in pending:
                    self._stand_in(pending, schema, "prefixItems")
        return self._meet(result, self._typed(pending, schema, place))

    @staticmethod
    def _stand_in(pending: dict[str, Any], schema: Mapping[str, Any], keyword: str) -> None:
        value = schema.get(keyword)
        if isinstance(value, Mapping):
            pending[keyword] = dict.fromkeys(value, True)
        elif isinstance(value, list):
            pending[keyword] = [True] * len(value)

    def _meet(self, left: Schema, right: Schema) -> Schema:
        return intersect(left, right, self.definitions)

    def _typed(self, pending: dict[str, Any], schema: Mapping[str, Any], place: str) -> Schema:
        """What the keywords that depend on the type allow."""
        if not pending:
            return AnyValue()
        names = schema.get("type", list(TYPES))
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list):
            raise GrammarError(f"type must be a string or an array, not {names!r}", place)
        options = tuple(self.types.read(name, pending, place) for name in names)
        return normalised(AnyOf(options), self.definitions)

    def _apply(self, result: Schema, keyword: str, schema: Mapping[str, Any], place: str) -> Schema:
        value, here = schema[keyword], f"{place}/{keyword}"
        if keyword == "const":
            return self._meet(result, constant(value))
        if keyword == "$ref":
            if not isinstance(value, str):
                raise GrammarError(f"$ref must be a string, not {value!r}", place)
            uri = self._define(value, schema)
            return Ref(uri) if isinstance(result, AnyValue) else self._meet(result, Ref(uri))
        if not isinstance(value, list):
            raise GrammarError(f"{keyword} must be an array, not {value!r}", place)
        if keyword == "enum":
            return self._meet(
                result, normalised(AnyOf(tuple(map(constant, value))), self.definitions)
            )
        options = tuple(self.read(option, f"{here}/{i}") for i, option in enumerate(value))
        if keyword == "allOf":
            for option in options:
                result = self._meet(result, option)
            return result
        union = AnyOf(options) if keyword == "anyOf" else OneOf(options, here)
        return self._meet(result, normalised(union, self.definitions))

    def _define(self, reference: str, schema: Mapping[str, Any]) -> str:
        """Reads what a reference in `schema` names, and returns the name of the definition."""
        uri, found = self.references.find(reference, schema)
        if uri not in self.definitions and uri not in self.open:
            self.open.add(uri)
            self.definitions[uri] = self.read(found, uri)
        return uri


def constant(value: Any) -> Schema:
    """The schema of exactly this JSON value."""
    if value is None:
        return Null()
    if isinstance(value, bool):
        return Boolean(value)
    if isinstance(value, (int, float)):
        return Number(value, value, integer=isinstance(value, int))
    if isinstance(value, str):
        return String(rules=(Literal(value),))
    if isinstance(value, list):
        items = tuple(map(constant, value))
        return Array(len(items), len(items), items, Nothing("the array is constant"))
    properties = {name: constant(item) for name, item in value.items()}
    return Object(
        properties, additional=Nothing("the object is constant"), required=tuple(properties)
    )
