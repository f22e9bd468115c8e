"""What an array or object says about one of its members."""

from __future__ import annotations

from dendrite_jax.grammar.json_schema.nodes import Array, Object, Schema
from dendrite_jax.grammar.json_schema.strings import pattern_dfa


def item_schema(array: Array, index: int) -> Schema:
    """The schema of an array's item."""
    return array.prefix[index] if index < len(array.prefix) else array.items


def property_schema(obj: Object, name: str) -> Schema:
    """The schema of an object's property."""
    if name in obj.properties:
        return obj.properties[name]
    for regex, schema in obj.patterns.items():
        if pattern_dfa(regex).matches(name.encode()):
            return schema
    return obj.additional
