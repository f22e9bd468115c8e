"""Token bytes, decoding and streaming, against the text itself and the tokenizers library."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library
from tokenizers import decoders, processors
from tokenizers.models import BPE, WordLevel

from dendrite_jax.text.tokenizer import TextStream, Tokenizer, TokenizerError
from models import tiny_tokenizers

LIBRARY = {
    "byte_level": tiny_tokenizers.byte_level(),
    "sentencepiece": tiny_tokenizers.sentencepiece(),
}
TOKENIZERS = {kind: Tokenizer(library.to_str()) for kind, library in LIBRARY.items()}

# The texts leave out the special tokens, which encoding recognises, and SentencePiece's sign for a
# space, which it cannot tell from one.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁<")),
    st.lists(st.sampled_from(" ".join(tiny_tokenizers.CORPUS).split(" ")), max_size=20).map(
        " ".join
    ),
)
KINDS = pytest.mark.parametrize("kind", TOKENIZERS)


@KINDS
@given(text=TEXTS)
def test_token_bytes_joined_are_the_text(kind: str, text: str) -> None:
    tokenizer = TOKENIZERS[kind]
    pieces = []
    for index in tokenizer.encode(text):
        piece = tokenizer.token_bytes[index]
        assert piece is not None
        pieces.append(piece)
    prefix = b" " if kind == "sentencepiece" and text else b""
    assert b"".join(pieces) == prefix + text.encode()


@KINDS
@given(text=TEXTS)
def test_decoding_equals_the_library(kind: str, text: str) -> None:
    ids = TOKENIZERS[kind].encode(text)
    assert ids == LIBRARY[kind].encode(text, add_special_tokens=False).ids
    assert TOKENIZERS[kind].decode(ids) == text
    assert LIBRARY[kind].decode(ids) == text


@KINDS
@given(text=TEXTS, cuts=st.lists(st.integers(0, 40)))
def test_stream_gives_whole_characters_only(kind: str, text: str, cuts: list[int]) -> None:
    ids = TOKENIZERS[kind].encode(text)
    stream = TextStream(TOKENIZERS[kind])
    pieces = []
    bounds = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    for start, end in pairwise(bounds):
        pieces.append(stream.feed(ids[start:end]))
        assert text.startswith("".join(pieces))
    assert "".join(pieces) == text
    assert stream.finish() == ""


def test_bytes_of_the_two_alphabets() -> None:
    byte_level, sentencepiece = TOKENIZERS["byte_level"], TOKENIZERS["sentencepiece"]
    # GPT-2's alphabet: "Ġ" is the space, "Ċ" the newline, "Ā" byte 0, "Ń" byte 0xAD.
    singles = {"Ġ": b" ", "Ċ": b"\n", "Ā": b"\x00", "Ń": b"\xad", "é": b"\xe9", "a": b"a"}
    for piece, expected in singles.items():
        assert byte_level.token_bytes[byte_level.token_id(piece)] == expected
    assert {byte_level.token_bytes[index] for index in range(256)} == {
        bytes([byte]) for byte in range(256)
    }
    for piece, expected in {"<0x0A>": b"\n", "<0xFF>": b"\xff", "▁": b" ", "a": b"a"}.items():
        assert sentencepiece.token_bytes[sentencepiece.token_id(piece)] == expected


def test_special_tokens_have_no_bytes_and_added_ones_their_text() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    assert tokenizer.token_bytes[tokenizer.token_id("<|end|>")] is None
    assert tokenizer.token_bytes[tokenizer.token_id("<think>")] == b"<think>"
    assert tokenizer.special_texts == {"<|end|>": tokenizer.token_id("<|end|>")}
    assert tokenizer.vocab_size == len(tokenizer.token_bytes) == 402
    ids = tokenizer.encode("a<think>b<|end|>")
    assert ids[-1] == tokenizer.token_id("<|end|>")
    assert tokenizer.decode(ids) == "a<think>b"


def test_unused_ids_have_no_bytes() -> None:
    library = Library(BPE({"a": 0, "b": 5}, []))
    library.decoder = decoders.Fuse()
    assert Tokenizer(library.to_str()).token_bytes == [b"a", None, None, None, None, b"b"]


def test_metaspace_and_plain_vocabularies() -> None:
    library = Library(WordLevel({"▁tree": 0, "s": 1}, unk_token="s"))
    library.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(library.to_str())
    assert tokenizer.token_bytes == [b" tree", b"s"]
    assert tokenizer.decode([0, 1, 0]) == library.decode([0, 1, 0]) == "trees tree"
    library.decoder = decoders.Metaspace(prepend_scheme="never")
    assert not Tokenizer(library.to_str()).prefix_space
    library.decoder = decoders.Fuse()
    assert Tokenizer(library.to_str()).decode([0, 1]) == library.decode([0, 1]) == "▁trees"


def test_continued_stream_keeps_its_first_space() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    ids = tokenizer.encode("the tree")
    assert TextStream(tokenizer).feed(ids) == "the tree"
    assert TextStream(tokenizer, continuation=True).feed(ids) == " the tree"


def test_bytes_that_are_not_utf8() -> None:
    tokenizer = TOKENIZERS["byte_level"]
    half = tokenizer.token_id("Ã")  # byte 0xC3, the first of two
    stream = TextStream(tokenizer)
    assert stream.feed([half]) == ""
    assert stream.finish() == "�"
    assert tokenizer.decode([half, tokenizer.token_id("a")]) == "�a"


def test_template_frames_only_when_asked() -> None:
    library = tiny_tokenizers.sentencepiece()
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer = Tokenizer(library.to_str())
    assert tokenizer.encode("a", add_special_tokens=True) == [1, *tokenizer.encode("a")]
    assert tokenizer.decode(tokenizer.encode("a", add_special_tokens=True)) == "a"


def test_truncation_and_padding_of_the_file_are_off() -> None:
    library = tiny_tokenizers.byte_level()
    library.enable_truncation(3)
    library.enable_padding(length=50)
    assert Tokenizer(library.to_str()).encode("a b c d e") == TOKENIZERS["byte_level"].encode(
        "a b c d e"
    )


def write(folder: Path, **settings: dict[str, Any]) -> None:
    LIBRARY["sentencepiece"].save(str(folder / "tokenizer.json"))
    for name, values in settings.items():
        (folder / f"{name}.json").write_text(json.dumps(values))


def test_special_ids_come_from_the_files_beside(tmp_path: Path) -> None:
    write(tmp_path)
    bare = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert (bare.bos_id, bare.eos_ids) == (None, ())
    write(tmp_path, tokenizer_config={"bos_token": "<s>", "eos_token": {"content": "</s>"}})
    named = Tokenizer.from_file(tmp_path)
    assert (named.bos_id, named.eos_ids) == (1, (2,))
    write(tmp_path, config={"bos_token_id": 7, "eos_token_id": 8})
    assert Tokenizer.from_file(tmp_path).eos_ids == (8,)
    write(tmp_path, generation_config={"eos_token_id": [2, 9]})
    generating = Tokenizer.from_file(tmp_path)
    assert (generating.bos_id, generating.eos_ids) == (7, (2, 9))


def test_unknown_tokens_are_errors(tmp_path: Path) -> None:
    tokenizer = TOKENIZERS["byte_level"]
    with pytest.raises(TokenizerError, match="'<nothing>' is not in the vocabulary"):
        tokenizer.token_id("<nothing>")
    for index in (-1, 402):
        with pytest.raises(TokenizerError, match=rf"token id {index} is outside \[0, 402\)"):
            tokenizer.decode([0, index])
    write(tmp_path, tokenizer_config={"eos_token": "<nothing>"})
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: token '<nothing>'"):
        Tokenizer.from_file(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "not a usable"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"version": "1.0"}', "not a usable"),
        (b"[]", "not a usable"),
    ],
)
def test_unreadable_file_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json: .*{message}"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


def test_truncated_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: not a usable"):
        Tokenizer.from_file(path)


def test_unknown_decoders_are_errors() -> None:
    library = Library(WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(TokenizerError, match="no decoder"):
        Tokenizer(library.to_str())
    library.decoder = decoders.WordPiece()
    with pytest.raises(TokenizerError, match=r"WordPiece.*not supported"):
        Tokenizer(library.to_str())
