"""The tokenizer that is built is the one that ships, and the project's loader reads it."""

from __future__ import annotations

import json
import random
from importlib.resources import as_file, files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.rules import (
    MAX_TARGET,
    all_puzzles,
    format_prompt,
    format_step,
    legal_moves,
)
from dendrite_jax.tasks.game24.training.tokenizer_build import build_tokenizer
from dendrite_jax.text.tokenizer import Tokenizer

SHIPPED = files("dendrite_jax.tasks.game24").joinpath("weights/tokenizer.json")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    with as_file(SHIPPED) as path:
        return Tokenizer.from_file(path)


def test_shipped_file_is_what_is_built() -> None:
    assert json.loads(SHIPPED.read_text()) == json.loads(build_tokenizer().to_str())


def test_ids_are_those_of_the_vocabulary(tokenizer: Tokenizer) -> None:
    assert tokenizer.vocab_size == vocab.VOCABULARY_SIZE
    assert [tokenizer.token_id(token) for token in vocab.SPECIAL_TOKENS] == [0, 1, 2]
    for word in vocab.WORDS:
        assert tokenizer.token_bytes[vocab.token_id(word)] == word.encode()
        assert tokenizer.encode(word) == [vocab.token_id(word)]
    for code in range(128):
        assert tokenizer.token_bytes[vocab.token_id(chr(code))] == bytes([code])
    spelt = [piece for piece in tokenizer.token_bytes if piece is not None]
    assert len(set(spelt)) == len(spelt) == 256 + len(vocab.WORDS)


@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    with as_file(SHIPPED) as path:
        tokenizer = Tokenizer.from_file(path)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_prompts_take_eight_tokens(tokenizer: Tokenizer) -> None:
    generator = random.Random(1)
    for target in range(1, MAX_TARGET + 1):
        prompt = format_prompt(generator.choice(all_puzzles()), target)
        assert len(tokenizer.encode(prompt)) == 8


def test_steps_take_a_token_for_a_whole_number_and_two_for_a_fraction(
    tokenizer: Tokenizer,
) -> None:
    for puzzle in random.Random(2).sample(all_puzzles(), 40):
        for move in legal_moves(puzzle):
            numbers = [move.a, move.b, move.result, *move.state]
            expected = 4 + sum(1 if number.denominator == 1 else 2 for number in numbers)
            ids = tokenizer.encode(format_step(move))
            assert len(ids) == expected
            assert ids[-1] == vocab.LEFT_CLOSE
            assert tokenizer.decode(ids) == format_step(move)
            assert tokenizer.encode(format_step(move, "sure")) == [*ids, vocab.SURE]
