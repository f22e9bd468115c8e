"""The raw bytes that each token of a vocabulary stands for.

Three ways of writing bytes in a vocabulary are known: the printable alphabet of GPT-2's byte-level
BPE, SentencePiece's (`▁` for a space, `<0x0A>` for a byte that no piece has), and plain text. The
decoder of the `tokenizer.json` tells which.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
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


class FirstSpace(Enum):
    """What decoding a whole text does with the space that it begins with."""

    KEPT = "kept"
    DROPPED = "dropped"
    """One space, as the `Strip` of a Llama 2 drops it."""
    DROPPED_UNLESS_TWO = "dropped unless two"
    """One space, unless another one follows. Metaspace puts a space before a text that begins with
    none, so that two are the text's own. (Hugging Face's decoder drops all spaces of the first
    token, so that the same text in other tokens decodes to another; with at most one they agree.)
    """

    def apply(self, start: bytes, ended: bool) -> bytes | None:
        """What is kept of the `start` of a text, None while the next byte decides."""
        undecided = (b"",) if self is FirstSpace.DROPPED else (b"", b" ")
        if self is FirstSpace.KEPT:
            return start
        if start in undecided and not ended:
            return None
        if self is FirstSpace.DROPPED_UNLESS_TWO and start.startswith(b"  "):
            return start
        return start.removeprefix(b" ")


@dataclass(frozen=True)
class ByteRule:
    """How the vocabulary writes bytes, and what decoding a whole text drops."""

    byte_level: bool = False
    byte_fallback: bool = False
    space: str | None = None
    """The character that stands for a space."""
    drop: FirstSpace = FirstSpace.KEPT

    def to_bytes(self, piece: str) -> bytes:
        """The bytes of one token as the vocabulary writes it."""
        if self.byte_level:
            if all(char in _BYTE_ALPHABET for char in piece):
                return bytes(_BYTE_ALPHABET[char] for char in piece)
            return piece.encode()
        if self.byte_fallback and (match := _BYTE_PIECE.fullmatch(piece)):
            return bytes([int(match[1], 16)])
        return (piece.replace(self.space, " ") if self.space else piece).encode()

    def added_to_bytes(self, piece: str) -> bytes:
        """The bytes of an added token that is not special, which runs through the decoder too.

        Its own text where the decoder would make what is not UTF-8 of it: a byte-level decoder
        takes the "é" of an added token for byte 0xE9.
        """
        data = self.to_bytes(piece)
        try:
            data.decode()
        except UnicodeDecodeError:
            return piece.encode()
        return data


def byte_rule(decoder: Mapping[str, Any] | None) -> ByteRule:
    """The rule behind the `decoder` of a `tokenizer.json`; ValueError when it is another kind."""
    rule = ByteRule()
    steps = list(_flatten(decoder, "decoders"))
    fused = False
    for step in steps:
        kind = step.get("type")
        if kind == "ByteLevel":
            rule = replace(rule, byte_level=True)
        elif kind == "ByteFallback":
            rule = replace(rule, byte_fallback=True)
        elif kind == "Metaspace":
            drop = FirstSpace.DROPPED_UNLESS_TWO if _prepends(step) else FirstSpace.KEPT
            space = step.get("replacement", _SENTENCEPIECE_SPACE)
            rule = replace(rule, space=space, drop=drop)
        elif kind == "Replace" and _is_a_space(step) and rule.space is None:
            rule = replace(rule, space=step["pattern"]["String"])
        elif kind == "Strip" and fused and _is_a_first_space(step):
            rule = replace(rule, drop=FirstSpace.DROPPED)
        elif kind == "Fuse":
            fused = True
        else:
            raise ValueError(f"decoder step {dict(step)} is not supported")
    if not steps:
        raise ValueError("no decoder: the text between tokens is not defined")
    return rule


def puts_space_first(
    normalizer: Mapping[str, Any] | None, pre_tokenizer: Mapping[str, Any] | None
) -> bool:
    """Whether encoding puts a space before a text that begins with none, as the file says."""
    return any(
        step.get("type") == "Prepend" and step["prepend"] in (" ", _SENTENCEPIECE_SPACE)
        for step in _flatten(normalizer, "normalizers")
    ) or any(
        (step.get("type") == "Metaspace" and _prepends(step))
        or (step.get("type") == "ByteLevel" and step.get("add_prefix_space", True))
        for step in _flatten(pre_tokenizer, "pretokenizers")
    )


def _prepends(metaspace: Mapping[str, Any]) -> bool:
    """Of a pre-tokenizer or a decoder; older files say `add_prefix_space` alone."""
    scheme = metaspace.get("prepend_scheme", "always")
    return scheme != "never" and metaspace.get("add_prefix_space") is not False


def _is_a_space(replacement: Mapping[str, Any]) -> bool:
    return len(replacement["pattern"].get("String", "")) == 1 and replacement["content"] == " "


def _is_a_first_space(strip: Mapping[str, Any]) -> bool:
    return strip["content"] == " " and (strip["start"], strip["stop"]) == (1, 0)


def _flatten(step: Mapping[str, Any] | None, parts: str) -> Iterator[Mapping[str, Any]]:
    """The steps of a decoder, normalizer or pre-tokenizer; `parts` is its sequences' field."""
    if step is None:
        return
    if step.get("type") == "Sequence":
        for part in step[parts]:
            yield from _flatten(part, parts)
    else:
        yield step
