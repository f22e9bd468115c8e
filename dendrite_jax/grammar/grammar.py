"""What a text must look like, before it is compiled for a vocabulary."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterable, Mapping
from typing import Any

from dendrite_jax.grammar.errors import GrammarError


class GrammarKind(enum.Enum):
    """The language that a grammar's source is written in."""

    JSON_SCHEMA = "JSON schema"
    REGEX = "regex"
    CHOICE = "choice"
    LARK = "Lark"


@dataclasses.dataclass(frozen=True)
class Grammar:
    """A constraint on a whole generated text.

    Attributes:
        kind: the language of `source`.
        source: the schema as JSON text, the regex, the choices as a JSON array, or the Lark text.
    """

    kind: GrammarKind
    source: str

    def __post_init__(self) -> None:
        if not isinstance(self.source, str):
            raise GrammarError(f"a {self.kind.value} must be a string, not {self.source!r}")
        try:
            self.source.encode()
        except UnicodeEncodeError as exc:
            raise GrammarError("a surrogate without its pair", f"offset {exc.start}") from exc

    @classmethod
    def from_json_schema(cls, schema: Mapping[str, Any] | bool | str) -> Grammar:
        """Texts that are JSON and valid under `schema` (an object, a boolean, or JSON text).

        Properties come in the order of the schema, other properties after them; white space is
        free inside the text. These semantics are llguidance's, as are the settings under the
        top-level key "x-guidance". A table takes more spellings of numbers and strings than
        llguidance does on the lazy path, and of dates and times only those that there are.

        Raises:
            GrammarError: the schema is not JSON.
        """
        try:
            value = json.loads(schema) if isinstance(schema, str) else schema
            source = json.dumps(value, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as exc:
            raise GrammarError(f"the schema is not JSON: {exc}") from exc
        return cls(GrammarKind.JSON_SCHEMA, source)

    @classmethod
    def from_regex(cls, pattern: str) -> Grammar:
        """Texts that the regex matches from end to end (dialect: see `regex_parser`)."""
        return cls(GrammarKind.REGEX, pattern)

    @classmethod
    def from_choice(cls, choices: Iterable[str]) -> Grammar:
        """Exactly one of the given texts.

        Raises:
            GrammarError: there is no choice, or one is not a string.
        """
        several = isinstance(choices, Iterable) and not isinstance(choices, str)
        texts = list(choices) if several else []
        if not several or not all(isinstance(text, str) for text in texts):
            raise GrammarError(f"choices must be a sequence of strings, not {choices!r}")
        if not texts:
            raise GrammarError("choices is empty; at least one is needed")
        return cls(GrammarKind.CHOICE, json.dumps(texts, ensure_ascii=False))

    @classmethod
    def from_lark(cls, text: str) -> Grammar:
        """A context-free grammar in llguidance's Lark syntax; it runs on the lazy path only."""
        return cls(GrammarKind.LARK, text)
