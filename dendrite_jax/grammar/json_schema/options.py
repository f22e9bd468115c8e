"""The settings that a schema may carry under its top-level key "x-guidance"."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from dendrite_jax.grammar.automata.json_quoting import DEFAULT_ESCAPES
from dendrite_jax.grammar.errors import GrammarError

KEY = "x-guidance"
_DEFAULT_SPACE = r"[ \n\r\t]+"


@dataclasses.dataclass(frozen=True)
class SchemaOptions:
    """How JSON is written, and what to do about unsupported keywords.

    Attributes:
        item_separator: regex between items and between properties.
        key_separator: regex between a property's name and value.
        whitespace_flexible: whether white space may stand between tokens of JSON.
        whitespace_pattern: regex of that white space; None is any.
        json_allowed_escapes: the letters that may follow a backslash in a string.
        coerce_one_of: treat oneOf as anyOf where the options may overlap.
        lenient: ignore unsupported keywords and formats; implies `coerce_one_of`.
    """

    item_separator: str = ","
    key_separator: str = ":"
    whitespace_flexible: bool = True
    whitespace_pattern: str | None = None
    json_allowed_escapes: str = DEFAULT_ESCAPES
    coerce_one_of: bool = False
    lenient: bool = False

    @property
    def space(self) -> str | None:
        """The regex of white space between tokens, None for none."""
        if self.whitespace_pattern is not None:
            return self.whitespace_pattern
        return _DEFAULT_SPACE if self.whitespace_flexible else None


def read_options(values: Any) -> SchemaOptions:
    """Options from the value of the key.

    Raises:
        GrammarError: an option is unknown or has a value of the wrong type.
    """
    place = f"#/{KEY}"
    if not isinstance(values, Mapping):
        raise GrammarError(f"must be an object, not {values!r}", place)
    defaults = dataclasses.asdict(SchemaOptions())
    for name, value in values.items():
        if name not in defaults:
            known = ", ".join(defaults)
            raise GrammarError(f"option {name!r} is not supported; known are {known}", place)
        wanted = str if defaults[name] is None else type(defaults[name])
        if not isinstance(value, wanted):
            raise GrammarError(f"{name} must be of type {wanted.__name__}, not {value!r}", place)
    options = SchemaOptions(**values)
    unknown = set(options.json_allowed_escapes) - set(DEFAULT_ESCAPES)
    if unknown:
        raise GrammarError(f"json_allowed_escapes has unknown letters {sorted(unknown)}", place)
    return options
