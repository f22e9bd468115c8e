"""The one error that a bad grammar raises."""

from __future__ import annotations


class GrammarError(ValueError):
    """A grammar that cannot be compiled.

    Attributes:
        reason: what is wrong, naming the limit or the construct.
        place: where it is: a JSON pointer into a schema, an offset in a regex, empty when the
            grammar as a whole is meant.
    """

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(f"{place}: {reason}" if place else reason)
        self.reason = reason
        self.place = place


class UnboundedRecursionError(GrammarError):
    """A recursive grammar without a depth bound: no finite table holds its language."""


class TooManyStatesError(GrammarError):
    """A grammar whose automaton or table is over its budget."""
