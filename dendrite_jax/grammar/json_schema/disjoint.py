"""When schemas certainly have no value in common."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

from dendrite_jax.grammar.automata.dfa_algebra import intersection
from dendrite_jax.grammar.errors import TooManyStatesError
from dendrite_jax.grammar.json_schema.members import item_schema, property_schema
from dendrite_jax.grammar.json_schema.nodes import (
    AnyOf,
    AnyValue,
    Array,
    Boolean,
    Definitions,
    Literal,
    Nothing,
    Number,
    Object,
    OneOf,
    Ref,
    Schema,
    String,
)
from dendrite_jax.grammar.json_schema.strings import text_dfa

# Two patterns whose common automaton is larger are taken to overlap.
_MAX_STATES = 2000


def pairwise_disjoint(options: Sequence[Schema], definitions: Definitions) -> bool:
    """Whether no value is certainly in two of the options; see `certainly_disjoint`."""
    pairs = _Pairs(definitions)
    return all(itertools.starmap(pairs.disjoint, itertools.combinations(options, 2)))


def certainly_disjoint(left: Schema, right: Schema, definitions: Definitions) -> bool:
    """Whether the schemas share no value, as far as types, bounds, constants and members tell.

    References are followed into `definitions`; one that is not there may be any value.
    """
    return _Pairs(definitions).disjoint(left, right)


class _Pairs:
    """Decides pairs of schemas, each once: a pair that recurses into itself is not disjoint."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        # Schemas are told apart by identity: `_kept` holds them, so that none takes another's.
        self._known: dict[tuple[int, int], bool] = {}
        self._kept: list[Schema] = []

    def disjoint(self, left: Schema, right: Schema) -> bool:
        key = id(left), id(right)
        if key not in self._known:
            self._kept += [left, right]
            self._known[key] = False
            self._known[key] = self._decide(left, right)
        return self._known[key]

    def _decide(self, left: Schema, right: Schema) -> bool:
        if isinstance(left, Nothing) or isinstance(right, Nothing):
            return True
        if isinstance(left, Ref):
            return self.disjoint(self._definitions.get(left.uri, AnyValue()), right)
        if isinstance(right, Ref):
            return self.disjoint(left, self._definitions.get(right.uri, AnyValue()))
        if isinstance(left, (AnyOf, OneOf)):
            return all(self.disjoint(option, right) for option in left.options)
        if isinstance(right, (AnyOf, OneOf)):
            return all(self.disjoint(left, option) for option in right.options)
        if isinstance(left, AnyValue) or isinstance(right, AnyValue):
            return False
        if isinstance(left, Boolean) and isinstance(right, Boolean):
            return None not in (left.value, right.value) and left.value != right.value
        if isinstance(left, Number) and isinstance(right, Number):
            return _is_below(left, right) or _is_below(right, left)
        if isinstance(left, String) and isinstance(right, String):
            return _strings_disjoint(left, right)
        if isinstance(left, Array) and isinstance(right, Array):
            return self._arrays(left, right)
        if isinstance(left, Object) and isinstance(right, Object):
            return any(
                self.disjoint(property_schema(left, name), property_schema(right, name))
                for name in (*left.required, *right.required)
            )
        return type(left) is not type(right)

    def _arrays(self, left: Array, right: Array) -> bool:
        fewest = max(left.min_items, right.min_items)
        if any(array.max_items is not None and array.max_items < fewest for array in (left, right)):
            return True
        # Beyond both prefixes all items have the same schemas.
        count = min(fewest, max(len(left.prefix), len(right.prefix)) + 1)
        return any(self.disjoint(item_schema(left, i), item_schema(right, i)) for i in range(count))


def _is_below(left: Number, right: Number) -> bool:
    (high, high_excluded), (low, low_excluded) = left.upper(), right.lower()
    if high is None or low is None:
        return False
    return high < low or (high == low and (high_excluded or low_excluded))


@functools.lru_cache(4096)
def _strings_disjoint(left: String, right: String) -> bool:
    for one, other in ((left, right), (right, left)):
        if one.max_length is not None and one.max_length < other.min_length:
            return True
    texts = _only_text(left), _only_text(right)
    if None not in texts:
        return texts[0] != texts[1]
    if left == right or not (left.rules and right.rules):
        return False
    try:
        dfas = text_dfa(left, _MAX_STATES), text_dfa(right, _MAX_STATES)
        return intersection(*dfas, max_states=_MAX_STATES).is_empty
    except TooManyStatesError:
        return False


def _only_text(schema: String) -> str | None:
    rules = schema.rules
    return rules[0].text if len(rules) == 1 and isinstance(rules[0], Literal) else None
