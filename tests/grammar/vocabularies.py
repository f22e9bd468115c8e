"""Small byte-level vocabularies, and llguidance over the same tokens."""

from __future__ import annotations

import dataclasses
import functools

import llguidance

_PIECES = r"""
{" "} "} }, },{ }} }]} ": ":" ":[ ":{ ": " , ", " ," "," ", " ], ] } ] [] {} [{ [[ ]] [" "] "],
true false null tru alse nul 00 10 12 123 1. .5 .0 0. -1 - -0 e1 E+ 1e 2024 -01- T12: :00 Z
a b ab abc name "name "name": "age": "a": "b": "x "id foo bar red green gre blue he llo hello
\" \\ \n \u \u0 u00 0000 0a "\ \n" ." @ . .. a. b@ .com :// http https ::1 :: 255 192.168.
"""
_SPACED = (" ", "  ", "\n", "\n  ", "\t", ' "', ": ", ", ", ' {"', "} ", "] ", " a", " 1", "a b")
_UNICODE = ("é", "ü", "日本", "日", "😀", "ñb", "\u00a0", "\u2028", "я", "٣")


@dataclasses.dataclass(frozen=True)
class FakeTokenizer:
    """Tokens without a way to encode text, as the grammar compiler needs them."""

    token_bytes: list[bytes | None]
    eos_ids: tuple[int, ...]


@functools.cache
def byte_level() -> FakeTokenizer:
    """All bytes, pieces of JSON and text, broken characters, two special tokens; the last ends."""
    pieces = [piece.encode() for piece in (*_PIECES.split(), *_SPACED, *_UNICODE)]
    broken = ["日".encode()[:2], "日".encode()[1:], "😀".encode()[:3], b'"\xe6', b"\x80\x80"]
    tokens = list(dict.fromkeys([bytes([i]) for i in range(256)] + pieces + broken))
    return FakeTokenizer([*tokens, None, None], (len(tokens) + 1,))


@functools.cache
def llguidance_tokenizer() -> llguidance.LLTokenizer:
    """llguidance's view of `byte_level()`."""
    tokenizer = byte_level()

    class Wrapped:
        eos_token_id = tokenizer.eos_ids[0]
        bos_token_id = None

        def __init__(self) -> None:
            self.tokens = [data or b"" for data in tokenizer.token_bytes]
            ids = range(len(self.tokens))
            self.special_token_ids = [i for i in ids if tokenizer.token_bytes[i] is None]

        def __call__(self, text: str | bytes) -> list[int]:
            return list(text.encode() if isinstance(text, str) else text)

    return llguidance.LLTokenizer(llguidance.TokenizerWrapper(Wrapped()))
