"""Keywords that are not implemented, in the uses in which they mean nothing or are easily said."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from dendrite_jax.grammar.json_schema.subschemas import subschemas

# Keywords that constrain values and are not implemented; all other unknown keys are ignored.
UNSUPPORTED = [
    "not",
    "if",
    "then",
    "else",
    "contains",
    "minContains",
    "maxContains",
    "uniqueItems",
    "propertyNames",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "unevaluatedItems",
    "unevaluatedProperties",
    "$dynamicRef",
    "$dynamicAnchor",
    "$recursiveRef",
    "$recursiveAnchor",
]


def forbids_all(schema: Mapping[str, Any]) -> bool:
    """Whether the schema has a `not` of any value."""
    return "not" in schema and _is_anything(schema["not"])


def is_no_op(keyword: str, schema: Mapping[str, Any]) -> bool:
    """Whether one of the `UNSUPPORTED` keywords of a schema lets every value through."""
    value = schema[keyword]
    if keyword == "not":
        return value is False
    if keyword == "if":
        return all(is_no_op(branch, schema) for branch in ("then", "else") if branch in schema)
    if keyword in ("then", "else"):
        never = schema.get("if") is False if keyword == "then" else _is_anything(schema.get("if"))
        return "if" not in schema or never or _is_anything(value)
    if keyword == "contains":
        return schema.get("minContains") == 0 and "maxContains" not in schema
    if keyword in ("minContains", "maxContains"):
        return "contains" not in schema or is_no_op("contains", schema)
    if keyword == "uniqueItems":
        most = schema.get("maxItems")
        return value is False or (value is True and most in (0, 1))
    if keyword in ("dependencies", "dependentRequired", "dependentSchemas"):
        return isinstance(value, Mapping) and all(
            item == [] or _is_anything(item) for item in value.values()
        )
    if keyword in ("propertyNames", "unevaluatedItems", "unevaluatedProperties"):
        return _is_anything(value)
    # An anchor names a place for $dynamicRef and $recursiveRef, and constrains nothing itself.
    return keyword in ("$dynamicAnchor", "$recursiveAnchor")


def without_no_ops(schema: Any) -> Any:
    """The same schema for a compiler that refuses these keywords whatever their value."""
    schema = copy.deepcopy(schema)
    for _, found in list(subschemas(schema)):
        dropped = [name for name in UNSUPPORTED if name in found and is_no_op(name, found)]
        if forbids_all(found):
            dropped.append("not")
            found["allOf"] = [*found.get("allOf", []), False]
        for name in dropped:
            del found[name]
    return schema


def _is_anything(schema: Any) -> bool:
    return schema is True or schema == {}
