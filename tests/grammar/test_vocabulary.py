"""The vocabulary trie, its cache, and real tokenizers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

from dendrite_jax import grammar as gr
from dendrite_jax.grammar.table import vocabulary
from dendrite_jax.grammar.table.vocabulary import (
    NO_NODE,
    VocabularyTrie,
    build_trie,
    load_or_build_trie,
)
from dendrite_jax.text.tokenizer import Tokenizer
from grammar.vocabularies import byte_level
from models import tiny_tokenizers

WORDS: list[bytes | None] = [b"a", b"ab", None, b"abc", b"b", b"", b"ab", b"bc\xff"]


def _spelled(trie: VocabularyTrie, node: int) -> bytes:
    data = b""
    while node:
        data = bytes([trie.byte[node]]) + data
        node = int(trie.parent[node])
    return data


@pytest.mark.parametrize("tokens", [WORDS, byte_level().token_bytes, [None], [b"x" * 300]])
def test_every_token_ends_at_the_node_that_spells_it(tokens: list[bytes | None]) -> None:
    trie = build_trie(tokens)
    for data, node in zip(tokens, trie.token_node.tolist(), strict=True):
        assert (node == NO_NODE) if not data else (_spelled(trie, node) == data)
    prefixes = {data[:n] for data in tokens if data for n in range(len(data) + 1)} | {b""}
    assert trie.nodes == len(prefixes)
    depth = np.array([len(_spelled(trie, node)) for node in range(trie.nodes)])
    levels = np.searchsorted(trie.level_start, np.arange(trie.nodes), side="right") - 1
    np.testing.assert_array_equal(depth, levels)


def _assert_equal(left: VocabularyTrie, right: VocabularyTrie) -> None:
    for name in ("parent", "byte", "level_start", "token_node"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name))


def test_the_cache_gives_the_same_trie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "new" / "folder"
    built = load_or_build_trie(WORDS, folder)
    monkeypatch.setattr(vocabulary, "build_trie", lambda _: pytest.fail("built again"))
    _assert_equal(load_or_build_trie(WORDS, folder), built)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 not a zip", b"\x93NUMPY"])
def test_a_damaged_cache_is_built_again(tmp_path: Path, damage: bytes) -> None:
    built = load_or_build_trie(WORDS, tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    _assert_equal(load_or_build_trie(WORDS, tmp_path), built)
    _assert_equal(load_or_build_trie(WORDS, tmp_path), built)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    _assert_equal(load_or_build_trie(WORDS, tmp_path / "file" / "below"), build_trie(WORDS))


def test_other_vocabularies_have_other_caches(tmp_path: Path) -> None:
    for tokens in (WORDS, WORDS[:-1], [b"", *WORDS], [None if w == b"" else w for w in WORDS]):
        _assert_equal(load_or_build_trie(tokens, tmp_path), build_trie(tokens))
    assert len(list(tmp_path.iterdir())) == 4


def test_the_compiler_caches_where_it_is_told(tmp_path: Path) -> None:
    gr.GrammarCompiler(byte_level(), cache_dir=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("definition", "end"),
    [(tiny_tokenizers.byte_level, "<|end|>"), (tiny_tokenizers.sentencepiece, "</s>")],
)
def test_real_tokenizers_spell_the_language(
    definition: Callable[[], tokenizers.Tokenizer], end: str
) -> None:
    tokenizer = Tokenizer(definition().to_str())
    end_id = tokenizer.token_id(end)
    compiler = gr.GrammarCompiler(tokenizer, eos_ids=[end_id], use_cache=False)
    texts = ["der Baum wächst", "木は9"]
    spelled = [" " * tokenizer.prefix_space + text for text in texts]
    g = compiler.compile(gr.Grammar.from_choice(spelled))
    for text in texts:
        state = gr.initial_state(g)
        for token in [*tokenizer.encode(text), end_id]:
            state = gr.accept_token(g, state, jnp.int32(token))
        assert gr.is_terminated(state)
    rng = np.random.default_rng(0)
    for _ in range(10):
        state, written = gr.initial_state(g), b""
        while not gr.is_terminated(state):
            allowed = np.flatnonzero(np.asarray(gr.allowed_tokens(g, state)))
            token = int(rng.choice(allowed))
            written += tokenizer.bytes_of(token)
            state = gr.accept_token(g, state, jnp.int32(token))
        assert written.decode() in spelled
