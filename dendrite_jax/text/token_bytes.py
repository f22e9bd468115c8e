"""The raw bytes that each token of a vocabulary stands for.

Three ways of writing bytes in a vocabulary are known: the printable alphabet of GPT-2's byte-level
BPE, SentencePiece's (`▁` for a space, `<0x0A>` for a byte that no piece has), and plain text. The
decoder of the `tokenizer.json` tells which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SENTENCEPIECE_SPACE = "▁"


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's character of each byte: itself where printable, else the next one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(0x100 + rank): byte for rank, byte in enumerate(others)})
    return alphabet


_BYTE_ALPHABET = _byte_alphabet()


@dataclass(frozen=True)
class ByteRule:
    """How the vocabulary writes bytes."""

    byte_level: bool = False
    byte_fallback: bool = False
    space: str | None = None
    """The character that stands for a space."""
    prefix_space: bool = False
    """Decoding a whole text drops the one space that encoding put before it."""

    def to_bytes(self, piece: str) -> bytes:
        """The bytes of one token of the model's vocabulary (not of an added token)."""
        if self.byte_level:
            if all(char in _BYTE_ALPHABET for char in piece):
                return bytes(_BYTE_ALPHABET[char] for char in piece)
            return piece.encode()
        if self.byte_fallback and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        return (piece.replace(self.space, " ") if self.space else piece).encode()


def byte_rule(decoder: Mapping[str, Any] | None) -> ByteRule:
    """The rule behind the `decoder` of a `tokenizer.json`; ValueError when it is another kind."""
    rule = ByteRule()
    steps = list(_flatten(decoder))
    for step in steps:
        kind = step.get("type")
        if kind == "ByteLevel":
            rule = replace(rule, byte_level=True)
        elif kind == "ByteFallback":
            rule = replace(rule, byte_fallback=True)
        elif kind == "Metaspace":
            prefix = step.get("prepend_scheme", "always") != "never"
            space = step.get("replacement", _SENTENCEPIECE_SPACE)
            rule = replace(rule, space=space, prefix_space=prefix)
        elif kind == "Replace" and "String" in step["pattern"] and step["content"] == " ":
            rule = replace(rule, space=step["pattern"]["String"])
        elif kind == "Strip" and step["content"] == " ":
            rule = replace(rule, prefix_space=step["start"] > 0)
        elif kind != "Fuse":
            raise ValueError(f"decoder step {dict(step)} is not supported")
    if not steps:
        raise ValueError("no decoder: the text between tokens is not defined")
    return rule


def _flatten(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if decoder is None:
        return
    if decoder.get("type") == "Sequence":
        for step in decoder["decoders"]:
            yield from _flatten(step)
    else:
        yield decoder
