"""A JSON schema as sets of values: the form in which schemas are intersected and compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from fractions import Fraction


@dataclasses.dataclass(frozen=True)
class AnyValue:
    """Every JSON value."""


@dataclasses.dataclass(frozen=True)
class Nothing:
    """No value, and why."""

    reason: str


@dataclasses.dataclass(frozen=True)
class Null:
    """null."""


@dataclasses.dataclass(frozen=True)
class Boolean:
    """true and false, or only `value`."""

    value: bool | None = None


@dataclasses.dataclass(frozen=True)
class Number:
    """Numbers within bounds; `integer` ones are written without point or exponent."""

    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: float | None = None
    exclusive_maximum: float | None = None
    integer: bool = False
    multiple_of: Fraction | None = None

    def lower(self) -> tuple[float | None, bool]:
        """The lower bound and whether it is excluded."""
        if self.exclusive_minimum is None:
            return self.minimum, False
        if self.minimum is not None and self.minimum > self.exclusive_minimum:
            return self.minimum, False
        return self.exclusive_minimum, True

    def upper(self) -> tuple[float | None, bool]:
        """The upper bound and whether it is excluded."""
        if self.exclusive_maximum is None:
            return self.maximum, False
        if self.maximum is not None and self.maximum < self.exclusive_maximum:
            return self.maximum, False
        return self.exclusive_maximum, True


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Texts in which `regex` matches somewhere; from end to end when `whole`."""

    regex: str
    whole: bool = False


@dataclasses.dataclass(frozen=True)
class Literal:
    """Exactly `text`."""

    text: str


@dataclasses.dataclass(frozen=True)
class String:
    """Strings whose length in characters is in bounds and that every rule accepts."""

    min_length: int = 0
    max_length: int | None = None
    rules: tuple[Pattern | Literal, ...] = ()


@dataclasses.dataclass(frozen=True)
class Array:
    """Arrays: `prefix` gives the first items' schemas, `items` all others'."""

    min_items: int = 0
    max_items: int | None = None
    prefix: tuple[Schema, ...] = ()
    items: Schema = AnyValue()


@dataclasses.dataclass(frozen=True)
class Object:
    """Objects, with properties in the order of `properties`, then of `required`, then others."""

    properties: dict[str, Schema] = dataclasses.field(default_factory=dict)
    patterns: dict[str, Schema] = dataclasses.field(default_factory=dict)
    additional: Schema = AnyValue()
    required: tuple[str, ...] = ()
    min_properties: int = 0
    max_properties: int | None = None


@dataclasses.dataclass(frozen=True)
class AnyOf:
    """Values of any option."""

    options: tuple[Schema, ...]


@dataclasses.dataclass(frozen=True)
class OneOf:
    """Values of exactly one option; `place` points at the keyword."""

    options: tuple[Schema, ...]
    place: str


@dataclasses.dataclass(frozen=True)
class Ref:
    """The schema that `uri` names."""

    uri: str


Schema = (
    AnyValue | Nothing | Null | Boolean | Number | String | Array | Object | AnyOf | OneOf | Ref
)

# What each URI of a Ref stands for; a definition that is being read is not there yet.
Definitions = Mapping[str, Schema]
