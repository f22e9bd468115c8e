"""Token bytes, decoding and streaming, against the text itself and the tokenizers library."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, pre_tokenizers, processors
from tokenizers import Tokenizer as Library
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


def test_ids_of_a_padded_vocabulary_give_no_text() -> None:
    tokenizer, library = TOKENIZERS["byte_level"], LIBRARY["byte_level"]
    first, half, end = tokenizer.token_id("Ã"), tokenizer.token_id("©"), tokenizer.vocab_size
    for ids in ([end], [65, end, 66], [first, end, half], [end + 100, first]):
        assert tokenizer.decode(ids) == library.decode(ids)
    assert tokenizer.bytes_of(end) == b""


def with_added(
    library: Library, *contents: str, normalized: bool = False
) -> tuple[Library, Tokenizer]:
    library.add_tokens([AddedToken(content, normalized=normalized) for content in contents])
    return library, Tokenizer(library.to_str())


@pytest.mark.parametrize("normalized", [True, False])
def test_added_tokens_run_through_the_decoder(normalized: bool) -> None:
    sentencepiece = tiny_tokenizers.sentencepiece()
    library, tokenizer = with_added(sentencepiece, "▁▁", "▁<b>▁", "<c>", normalized=normalized)
    # A token that is looked for in the normalised text has the space that normalising prepends.
    prefix = b" " * normalized
    for content, data in {"▁▁": b"  ", "▁<b>▁": b" <b> ", "<c>": b"<c>"}.items():
        index = tokenizer.token_id(content)
        assert tokenizer.token_bytes[index] == prefix + data
        ids = [*tokenizer.encode("a"), index, *tokenizer.encode("b")]
        assert tokenizer.decode(ids) == library.decode(ids) == f"a{(prefix + data).decode()} b"


def test_added_tokens_run_through_the_byte_level_decoder() -> None:
    library, tokenizer = with_added(tiny_tokenizers.byte_level(), "Ġx", "<｜é｜>", "é|", " y")
    for content, data in {"Ġx": b" x", "<｜é｜>": "<｜é｜>".encode(), " y": b" y"}.items():
        assert tokenizer.token_bytes[tokenizer.token_id(content)] == data
        assert library.decode([tokenizer.token_id(content)]) == data.decode()
    # The library takes this one's "é" for byte 0xE9, and shows U+FFFD; the text survives here.
    assert library.decode([tokenizer.token_id("é|")]) == "�|"
    assert tokenizer.decode(tokenizer.encode("aé|b")) == "aé|b"


def metaspace(scheme: str, split: bool, decoder: decoders.Decoder) -> Library:
    """Pieces of one, two and four spaces, and letters."""
    pieces = ["▁", "▁▁", "▁▁▁▁", *"abfix:"]
    merges = [("▁", "▁"), ("▁▁", "▁▁")]
    library = Library(BPE({piece: index for index, piece in enumerate(pieces)}, merges))
    library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    library.decoder = decoder
    library.add_special_tokens(["<s>"])
    library.add_tokens([AddedToken("<b>", normalized=False)])
    return library


LLAMA_DECODER = tiny_tokenizers.sentencepiece().decoder


@pytest.mark.parametrize("decoder", ["metaspace", "strip"])
@pytest.mark.parametrize("split", [True, False])
@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@given(text=st.text("abfix: ", max_size=8), cut=st.integers(0, 8))
@example(text="    if x:", cut=1)
def test_spaces_before_a_text_of_metaspace(
    scheme: str, split: bool, decoder: str, text: str, cut: int
) -> None:
    strip = decoder == "strip"
    made = LLAMA_DECODER if strip else decoders.Metaspace(prepend_scheme=scheme)
    library = metaspace(scheme, split, made)
    tokenizer = Tokenizer(library.to_str())
    assert tokenizer.prefix_space == (scheme != "never")
    ids = tokenizer.encode(text)
    prefix = " " * (tokenizer.prefix_space and text[:1] not in ("", " "))
    data = b"".join(tokenizer.bytes_of(index) for index in ids)
    assert data.decode() == prefix + text

    stream = TextStream(tokenizer)
    pieces = [stream.feed(ids[:cut]), stream.feed(ids[cut:]), stream.finish()]
    assert "".join(pieces) == tokenizer.decode(ids)
    assert tokenizer.decode(ids, continuation=True) == prefix + text
    if strip:
        assert tokenizer.decode(ids) == library.decode(ids)
        return
    if not text.startswith("  "):  # the library drops as many spaces as the first token has
        assert tokenizer.decode(ids) == library.decode(ids)
    lost = scheme != "never" and text.startswith(" ") and not text.startswith("  ")
    assert tokenizer.decode(ids) == (text[1:] if lost else text)


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
@pytest.mark.parametrize("text", ["<b>x", "a<b>x", "<s>x", "<s> x", "a <b>x", "a<s><b> x"])
def test_added_tokens_among_the_spaces_of_metaspace(scheme: str, text: str) -> None:
    library = metaspace(scheme, True, decoders.Metaspace(prepend_scheme=scheme))
    tokenizer = Tokenizer(library.to_str())
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == library.decode(ids)
    after = text.split(">")[-1]
    again = " " * (scheme == "always" and not after.startswith(" "))
    data = b"".join(tokenizer.bytes_of(index) for index in ids).decode()
    assert data.endswith(again + after)
    assert data.removesuffix(again + after)[-1:] != " "


@pytest.mark.parametrize("first", [True, False])
def test_a_byte_level_space_before_the_text(first: bool) -> None:
    library = tiny_tokenizers.byte_level()
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=first)
    tokenizer = Tokenizer(library.to_str())
    assert tokenizer.prefix_space == first
    for text in ("the tree", " the tree", "  the"):
        ids = tokenizer.encode(text)
        data = b"".join(tokenizer.bytes_of(index) for index in ids).decode()
        assert data == " " * (first and not text.startswith(" ")) + text
        assert tokenizer.decode(ids) == library.decode(ids) == data


def test_metaspace_of_older_files() -> None:
    fields = json.loads(metaspace("never", True, decoders.Metaspace()).to_str())
    for part in ("pre_tokenizer", "decoder"):
        fields[part] = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    tokenizer = Tokenizer(json.dumps(fields))
    assert tokenizer.prefix_space
    assert tokenizer.decode(tokenizer.encode("ab")) == "ab"


def test_metaspace_and_plain_vocabularies() -> None:
    library = Library(WordLevel({"▁tree": 0, "s": 1}, unk_token="s"))
    library.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(library.to_str())
    assert tokenizer.token_bytes == [b" tree", b"s"]
    assert tokenizer.decode([0, 1, 0]) == library.decode([0, 1, 0]) == "trees tree"
    library.decoder = decoders.Metaspace(prepend_scheme="never")
    assert Tokenizer(library.to_str()).decode([0, 1]) == library.decode([0, 1]) == " trees"
    library.decoder = decoders.Fuse()
    assert Tokenizer(library.to_str()).decode([0, 1]) == library.decode([0, 1]) == "▁trees"


def test_continued_stream_keeps_its_first_space() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    ids = tokenizer.encode("the tree")
    assert TextStream(tokenizer).feed(ids) == "the tree"
    assert TextStream(tokenizer, continuation=True).feed(ids) == " the tree"
    assert tokenizer.decode(ids, continuation=True) == " the tree"


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
    with pytest.raises(TokenizerError, match="token id is -1; it must be at least 0"):
        tokenizer.decode([0, -1])
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
    for decoder, message in (
        (decoders.WordPiece(), "WordPiece.*not supported"),
        (decoders.Strip(" ", 1, 0), "Strip.*not supported"),  # of each token, for want of a Fuse
        (decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 0, 1)]), "Strip.*not supported"),
        (decoders.Replace("ab", " "), "Replace.*not supported"),
        (decoders.Replace("a", "b"), "Replace.*not supported"),
    ):
        library.decoder = decoder
        with pytest.raises(TokenizerError, match=message):
            Tokenizer(library.to_str())
