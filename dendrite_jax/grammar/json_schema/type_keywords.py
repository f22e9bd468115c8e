"""Reads the keywords that constrain values of one type."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from dendrite_jax.grammar.automata.regex_parser import parse_regex
from dendrite_jax.grammar.errors import GrammarError
from dendrite_jax.grammar.json_schema.formats import FORMATS
from dendrite_jax.grammar.json_schema.intersect import check_disjoint, checked_object
from dendrite_jax.grammar.json_schema.nodes import (
    Array,
    Boolean,
    Null,
    Number,
    Object,
    Pattern,
    Schema,
    String,
)
from dendrite_jax.grammar.json_schema.strings import pattern_dfa

TYPES = ("null", "boolean", "number", "string", "array", "object")

# Above all doubles; an automaton has some states per digit of a bound.
_LARGEST_BOUND = 10**309
_LARGEST_MULTIPLE = 2**32

Keywords = Mapping[str, Any]


class TypeReader:
    """Reads one type's keywords; subschemas go through `read`, intersections through `meet`."""

    def __init__(
        self,
        read: Callable[[Any, str], Schema],
        meet: Callable[[Schema, Schema], Schema],
        lenient: bool,
        old_draft: bool,
    ) -> None:
        self._read = read
        self._meet = meet
        self._lenient = lenient
        self._old_draft = old_draft

    def read(self, name: Any, keywords: Keywords, place: str) -> Schema:
        """The values of type `name` that the keywords allow."""
        if name == "null":
            return Null()
        if name == "boolean":
            return Boolean()
        if name in ("number", "integer"):
            return self._number(name == "integer", keywords, place)
        if name == "string":
            return self._string(keywords, place)
        if name == "array":
            return self._array(keywords, place)
        if name == "object":
            return self._object(keywords, place)
        raise GrammarError(
            f"type {name!r} is unknown; known are {', '.join(TYPES)}, integer", place
        )

    def _number(self, integer: bool, keywords: Keywords, place: str) -> Schema:
        bounds = {
            name: _number_of(keywords, name, place)
            for name in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
        }
        for name, inclusive in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
            # Draft 4 writes a boolean that makes the other keyword exclusive.
            if keywords.get(name) is True:
                bounds[name] = bounds[inclusive]
        multiple = _number_of(keywords, "multipleOf", place)
        if multiple is not None and not 0 < abs(multiple) < _LARGEST_MULTIPLE:
            raise GrammarError(
                f"multipleOf is {multiple}; it must be above 0 and below {_LARGEST_MULTIPLE}", place
            )
        return Number(
            bounds["minimum"],
            bounds["maximum"],
            bounds["exclusiveMinimum"],
            bounds["exclusiveMaximum"],
            integer,
            None if multiple is None else Fraction(repr(abs(multiple))),
        )

    def _string(self, keywords: Keywords, place: str) -> Schema:
        rules = []
        if "pattern" in keywords:
            pattern = _text_of(keywords["pattern"], "pattern", place)
            rules.append(Pattern(pattern))
            parse_regex(pattern)  # a bad regex is reported here, where its place is known
        if "format" in keywords:
            name = _text_of(keywords["format"], "format", place)
            known = FORMATS.get(name)
            if known is not None:
                rules.append(Pattern(known, whole=True))
            elif not self._lenient:
                raise GrammarError(
                    f"format {name!r} is not supported; known are {', '.join(FORMATS)}", place
                )
        return String(
            _count_of(keywords, "minLength", place) or 0,
            _count_of(keywords, "maxLength", place),
            tuple(rules),
        )

    def _array(self, keywords: Keywords, place: str) -> Schema:
        prefix, items = keywords.get("prefixItems", []), keywords.get("items", True)
        prefix_name, items_name = "prefixItems", "items"
        if self._old_draft or "additionalItems" in keywords or isinstance(items, list):
            prefix = []
            if isinstance(items, list):
                prefix, items = items, keywords.get("additionalItems", True)
                prefix_name, items_name = "items", "additionalItems"
        if not isinstance(prefix, list):
            raise GrammarError(f"prefixItems must be an array, not {prefix!r}", place)
        return Array(
            _count_of(keywords, "minItems", place) or 0,
            _count_of(keywords, "maxItems", place),
            tuple(self._read(item, f"{place}/{prefix_name}/{i}") for i, item in enumerate(prefix)),
            self._read(items, f"{place}/{items_name}"),
        )

    def _object(self, keywords: Keywords, place: str) -> Schema:
        required = keywords.get("required", [])
        if not isinstance(required, list):
            raise GrammarError(f"required must be an array, not {required!r}", place)
        properties = self._schemas(keywords, "properties", place)
        patterns = self._schemas(keywords, "patternProperties", place)
        check_disjoint(patterns)
        for name, regex in itertools.product(properties, patterns):
            if pattern_dfa(regex).matches(name.encode()):
                properties[name] = self._meet(properties[name], patterns[regex])
        obj = Object(
            properties,
            patterns,
            self._read(keywords.get("additionalProperties", True), f"{place}/additionalProperties"),
            tuple(dict.fromkeys(_text_of(name, "a name in required", place) for name in required)),
            _count_of(keywords, "minProperties", place) or 0,
            _count_of(keywords, "maxProperties", place),
        )
        return checked_object(obj)

    def _schemas(self, keywords: Keywords, name: str, place: str) -> dict[str, Schema]:
        schemas = keywords.get(name, {})
        if not isinstance(schemas, Mapping):
            raise GrammarError(f"{name} must be an object, not {schemas!r}", place)
        return {key: self._read(value, f"{place}/{name}/{key}") for key, value in schemas.items()}


def _number_of(keywords: Keywords, name: str, place: str) -> float | None:
    """The number, an int where it is written as one: a float does not hold every int."""
    if name not in keywords:
        return None
    value = keywords[name]
    if isinstance(value, bool) and name.startswith("exclusive"):
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise GrammarError(f"{name} must be a number, not {value!r}", place)
    if not abs(value) <= _LARGEST_BOUND:  # nor is NaN
        raise GrammarError(f"{name} is {value}; its magnitude must be at most 10^309", place)
    return value


def _count_of(keywords: Keywords, name: str, place: str) -> int | None:
    if name not in keywords:
        return None
    value = keywords[name]
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise GrammarError(f"{name} must be an integer of at least 0, not {value!r}", place)
    return value


def _text_of(value: Any, name: str, place: str) -> str:
    if not isinstance(value, str):
        raise GrammarError(f"{name} must be a string, not {value!r}", place)
    return value
