"""Intersection of schemas."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import TypeVar

from dendrite_jax.grammar.automata.dfa_algebra import intersection
from dendrite_jax.grammar.errors import GrammarError
from dendrite_jax.grammar.json_schema.disjoint import pairwise_disjoint
from dendrite_jax.grammar.json_schema.members import item_schema, property_schema
from dendrite_jax.grammar.json_schema.nodes import (
    AnyOf,
    AnyValue,
    Array,
    Boolean,
    Definitions,
    Nothing,
    Null,
    Number,
    Object,
    OneOf,
    Ref,
    Schema,
    String,
)
from dendrite_jax.grammar.json_schema.strings import pattern_dfa

# Definitions that refer to each other through their intersections would go on for ever.
MAX_DEPTH = 64

_Bound = TypeVar("_Bound", int, float)


def intersect(left: Schema, right: Schema, definitions: Definitions, depth: int = 0) -> Schema:
    """The values of both; where order matters (properties), the left one's comes first.

    Raises:
        GrammarError: the schemas are recursive in a way that does not end, or their
            patternProperties overlap.
    """
    if depth > MAX_DEPTH:
        raise GrammarError(f"intersecting these schemas goes deeper than {MAX_DEPTH} levels")

    def meet(a: Schema, b: Schema) -> Schema:
        return intersect(a, b, definitions, depth + 1)

    if isinstance(left, AnyValue):
        merged = right
    elif isinstance(right, AnyValue):
        merged = left
    elif isinstance(left, Nothing) or isinstance(right, Nothing):
        merged = left if isinstance(left, Nothing) else right
    elif isinstance(left, Ref):
        merged = meet(_definition(left, definitions), right)
    elif isinstance(right, Ref):
        merged = meet(left, _definition(right, definitions))
    elif isinstance(left, OneOf):
        merged = OneOf(tuple(meet(option, right) for option in left.options), left.place)
    elif isinstance(right, OneOf):
        merged = OneOf(tuple(meet(left, option) for option in right.options), right.place)
    elif isinstance(left, AnyOf):
        merged = AnyOf(tuple(meet(option, right) for option in left.options))
    elif isinstance(right, AnyOf):
        merged = AnyOf(tuple(meet(left, option) for option in right.options))
    else:
        merged = _intersect_values(left, right, meet)
    return normalised(merged, definitions)


def _definition(ref: Ref, definitions: Definitions) -> Schema:
    if ref.uri not in definitions:
        raise GrammarError(f"$ref {ref.uri!r} beside other keywords refers to itself")
    return definitions[ref.uri]


def _intersect_values(left: Schema, right: Schema, meet: Callable[..., Schema]) -> Schema:
    if isinstance(left, Null) and isinstance(right, Null):
        return left
    if isinstance(left, Boolean) and isinstance(right, Boolean):
        if left.value is None or right.value is None or left.value == right.value:
            return right if left.value is None else left
        return Nothing("true and false are different values")
    if isinstance(left, Number) and isinstance(right, Number):
        return _intersect_numbers(left, right)
    if isinstance(left, String) and isinstance(right, String):
        return String(
            max(left.min_length, right.min_length),
            least(left.max_length, right.max_length),
            left.rules + right.rules,
        )
    if isinstance(left, Array) and isinstance(right, Array):
        count = max(len(left.prefix), len(right.prefix))
        prefix = [meet(item_schema(left, i), item_schema(right, i)) for i in range(count)]
        return Array(
            max(left.min_items, right.min_items),
            least(left.max_items, right.max_items),
            tuple(prefix),
            meet(left.items, right.items),
        )
    if isinstance(left, Object) and isinstance(right, Object):
        return _intersect_objects(left, right, meet)
    return Nothing("the types exclude each other")


def _intersect_numbers(left: Number, right: Number) -> Number:
    multiples = [n.multiple_of for n in (left, right) if n.multiple_of is not None]
    return Number(
        most(left.minimum, right.minimum),
        least(left.maximum, right.maximum),
        most(left.exclusive_minimum, right.exclusive_minimum),
        least(left.exclusive_maximum, right.exclusive_maximum),
        left.integer or right.integer,
        _common_multiple(*multiples) if len(multiples) == 2 else next(iter(multiples), None),
    )


def _intersect_objects(left: Object, right: Object, meet: Callable[..., Schema]) -> Schema:
    properties = {
        name: meet(schema, property_schema(right, name)) for name, schema in left.properties.items()
    }
    for name, schema in right.properties.items():
        if name not in properties:
            properties[name] = meet(property_schema(left, name), schema)
    patterns = {
        regex: meet(schema, right.patterns.get(regex, right.additional))
        for regex, schema in left.patterns.items()
    }
    for regex, schema in right.patterns.items():
        if regex not in patterns:
            patterns[regex] = meet(schema, left.additional)
    check_disjoint(patterns)
    return checked_object(
        Object(
            properties,
            patterns,
            meet(left.additional, right.additional),
            tuple(dict.fromkeys(left.required + right.required)),
            max(left.min_properties, right.min_properties),
            least(left.max_properties, right.max_properties),
        )
    )


def normalised(schema: Schema, definitions: Definitions) -> Schema:
    """Without unions in unions, impossible options, and unions of one option.

    A oneOf whose options are seen to be disjoint becomes an anyOf.
    """
    if not isinstance(schema, (AnyOf, OneOf)):
        return schema
    options: list[Schema] = []
    impossible: list[Schema] = []
    for option in schema.options:
        if isinstance(option, AnyValue) and isinstance(schema, AnyOf):
            return option
        if isinstance(option, Nothing):
            impossible.append(option)
        elif type(option) is type(schema):
            options += option.options
        else:
            options.append(option)
    if not options:
        return impossible[0] if impossible else Nothing("there are no options")
    if len(options) == 1:
        return options[0]
    if isinstance(schema, AnyOf):
        return AnyOf(tuple(options))
    if pairwise_disjoint(options, definitions):
        return AnyOf(tuple(options))
    return OneOf(tuple(options), schema.place)


def checked_object(obj: Object) -> Schema:
    """The object's schema, or Nothing when the numbers of properties contradict."""
    if obj.max_properties is not None:
        for limit, name in (
            (obj.min_properties, "minProperties"),
            (len(obj.required), "the number of required properties"),
        ):
            if limit > obj.max_properties:
                return Nothing(f"{name} ({limit}) is above maxProperties ({obj.max_properties})")
    return obj


def check_disjoint(patterns: Mapping[str, Schema]) -> None:
    """Refuses patternProperties of which two can match one name."""
    regexes = list(patterns)
    for i, first in enumerate(regexes):
        for second in regexes[i + 1 :]:
            if not intersection(pattern_dfa(first), pattern_dfa(second)).is_empty:
                raise GrammarError(
                    f"patternProperties {first!r} and {second!r} match a common name, "
                    "which is not supported"
                )


def least(a: _Bound | None, b: _Bound | None) -> _Bound | None:
    """The smaller of two bounds, None for no bound."""
    bounds = [bound for bound in (a, b) if bound is not None]
    return min(bounds, default=None)


def most(a: _Bound | None, b: _Bound | None) -> _Bound | None:
    """The larger of two bounds, None for no bound."""
    bounds = [bound for bound in (a, b) if bound is not None]
    return max(bounds, default=None)


def _common_multiple(a: Fraction, b: Fraction) -> Fraction:
    return Fraction(
        math.lcm(a.numerator * b.denominator, b.numerator * a.denominator),
        a.denominator * b.denominator,
    )
