"""The syntax tree of a regular expression over Unicode text."""

from __future__ import annotations

import dataclasses
import enum

from dendrite_jax.grammar.automata.charset import CharSet


class Anchor(enum.Enum):
    """A zero-width assertion."""

    START = "^"
    END = "$"


@dataclasses.dataclass(frozen=True)
class Chars:
    """One character of a set."""

    chars: CharSet


@dataclasses.dataclass(frozen=True)
class Concat:
    """The parts one after another; no parts match the empty text."""

    parts: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Union:
    """Any of the options; no options match nothing."""

    options: tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Repeat:
    """`low` to `high` copies of the body, without limit when `high` is None."""

    body: Node
    low: int
    high: int | None


Node = Chars | Concat | Union | Repeat | Anchor

EMPTY = Concat(())


def literal(text: str) -> Node:
    """Exactly this text."""
    return Concat(tuple(Chars(((ord(char), ord(char)),)) for char in text))


def optional(body: Node) -> Node:
    """The body or nothing."""
    return Repeat(body, 0, 1)


def concat(*parts: Node) -> Node:
    """The parts one after another."""
    return Concat(parts)


def union(*options: Node) -> Node:
    """Any of the options."""
    return options[0] if len(options) == 1 else Union(options)
