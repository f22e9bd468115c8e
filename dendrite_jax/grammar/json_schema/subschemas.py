"""Where a JSON schema holds further schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_ONE = [
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
]
_LISTS = ["allOf", "anyOf", "items", "oneOf", "prefixItems"]
_MAPS = [
    "$defs",
    "definitions",
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
]

# Keys and indices from the document to a part of it.
Path = tuple[str | int, ...]


def subschemas(schema: Any, path: Path = ()) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The schema itself and all schemas inside it that are objects, each with its path.

    A schema comes before those inside it; what is no schema (const, examples) is not looked into.
    """
    waiting = [(path, schema)]
    while waiting:
        here, found = waiting.pop()
        if not isinstance(found, dict):
            continue
        yield here, found
        waiting += [((*here, name), found[name]) for name in _ONE if name in found]
        for name in _LISTS:
            if isinstance(found.get(name), list):
                waiting += [((*here, name, i), item) for i, item in enumerate(found[name])]
        for name in _MAPS:
            if isinstance(found.get(name), dict):
                waiting += [((*here, name, key), item) for key, item in found[name].items()]
