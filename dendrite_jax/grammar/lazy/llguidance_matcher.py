"""llguidance as the host's matcher: grammars in its syntax, masks over our vocabulary."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import llguidance
import llguidance.numpy
import numpy as np
from numpy.typing import NDArray

from dendrite_jax.grammar.errors import GrammarError
from dendrite_jax.grammar.grammar import Grammar, GrammarKind
from dendrite_jax.grammar.json_schema.no_ops import without_no_ops

_SETTINGS = re.compile(r"^[ \t]*%llguidance\s*(\{.*\})[ \t]*$", re.MULTILINE)
# How its messages begin: the place in the Lark text, what is wrong, then an excerpt.
_MESSAGE = re.compile(r"(?:at )?(?:(?P<line>\d+)\((?P<column>\d+)\): )?(?P<reason>.*)")
_DETAIL = re.compile(r"^error: (.*)$", re.MULTILINE)
# What it says, once it is asked for a mask, of a grammar without a text.
NO_TEXT_MESSAGE = "NoExtensionBias"


class _VocabularyWrapper:
    """The object that `llguidance.TokenizerWrapper` reads."""

    bos_token_id = None

    def __init__(self, token_bytes: Sequence[bytes | None], eos_id: int) -> None:
        self.eos_token_id = eos_id
        self.tokens = [data or b"" for data in token_bytes]
        self.special_token_ids = [i for i, data in enumerate(token_bytes) if data is None]
        self._ids = {data: i for i, data in enumerate(token_bytes) if data}
        self._longest = max(map(len, self._ids), default=0)

    def __call__(self, text: str | bytes) -> list[int]:
        """Splits a text into the longest tokens from the left; only forcing would need better."""
        data = text.encode() if isinstance(text, str) else text
        ids = []
        while data:
            lengths = range(min(self._longest, len(data)), 0, -1)
            length = next((n for n in lengths if data[:n] in self._ids), 0)
            if not length:
                break
            ids.append(self._ids[data[:length]])
            data = data[length:]
        return ids


class MatcherFactory:
    """Makes llguidance matchers for one vocabulary."""

    def __init__(self, token_bytes: Sequence[bytes | None], eos_ids: Sequence[int]) -> None:
        self._vocab_size = len(token_bytes)
        self._eos_ids = list(eos_ids)
        wrapper = _VocabularyWrapper(token_bytes, self._eos_ids[0])
        self._tokenizer = llguidance.LLTokenizer(llguidance.TokenizerWrapper(wrapper))

    def root(self, grammar: Grammar) -> llguidance.LLMatcher:
        """A matcher at the start of a text; it shares nothing with other roots.

        Raises:
            GrammarError: llguidance refuses the grammar.
        """
        matcher = llguidance.LLMatcher(self._tokenizer, to_lark(grammar), log_level=0)
        if matcher.is_error():
            message = _MESSAGE.match(matcher.get_error())
            assert message is not None
            known = grammar.kind is GrammarKind.LARK and message["line"]
            place = f"line {message['line']}, column {message['column']}" if known else ""
            reason = " ".join([message["reason"], *_DETAIL.findall(matcher.get_error())])
            raise GrammarError(f"invalid {grammar.kind.value} grammar: {reason}", place)
        return matcher

    def mask(self, matcher: llguidance.LLMatcher) -> NDArray[np.uint32] | None:
        """u32[ceil(vocabulary / 32)]: the tokens allowed next; None when the matcher failed."""
        words = llguidance.numpy.allocate_token_bitmask(1, self._vocab_size)
        llguidance.numpy.fill_next_token_bitmask(matcher, words, 0)
        if matcher.is_error():
            return None
        mask = words[0].view(np.uint32)
        # llguidance knows one end-of-sequence token; the others are allowed where it is.
        first = self._eos_ids[0]
        if mask[first // 32] >> np.uint32(first % 32) & np.uint32(1):
            for token in self._eos_ids[1:]:
                mask[token // 32] |= np.uint32(1) << np.uint32(token % 32)
        return mask


def to_lark(grammar: Grammar) -> str:
    """The grammar in llguidance's Lark syntax, with every tokenisation of a text allowed."""
    settings = {"no_forcing": True}
    if grammar.kind is GrammarKind.LARK:
        text = grammar.source
        found = _SETTINGS.search(text)
        if found:
            try:
                settings = {**json.loads(found[1]), **settings}
            except ValueError as exc:
                raise GrammarError(f"the %llguidance line is not JSON: {exc}") from exc
            text = text[: found.start()] + text[found.end() :]
    elif grammar.kind is GrammarKind.JSON_SCHEMA:
        schema = without_no_ops(json.loads(grammar.source))
        text = f"start: %json {json.dumps(schema, ensure_ascii=False)}"
    else:
        pattern = grammar.source
        if grammar.kind is GrammarKind.CHOICE:
            pattern = "|".join(map(_escaped, json.loads(pattern)))
        text = f"start: /{llguidance.regex_to_lark(pattern, 'dw')}/"
    # The settings come last, so that a message names the line of the grammar's own text.
    return f"{text}\n%llguidance {json.dumps(settings)}\n"


def _escaped(text: str) -> str:
    """A regex of exactly this text."""
    return "".join(f"\\x{{{ord(char):x}}}" for char in text)
