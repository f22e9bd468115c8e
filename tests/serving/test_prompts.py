"""From prompts to a state: what the branches hold, and that the sizes are just enough."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from dendrite_jax.cache import CapacityError, debug, stats
from dendrite_jax.engine import GREEDY, GenerateConfig
from dendrite_jax.serving import compiled, start
from dendrite_jax.serving.prompts import blocks_at_most
from dendrite_jax.serving.validation import PromptError
from engine.programs import bigram

MODEL = bigram()
PROMPTS = [[1] * 5, [2, 3, 4], [5] * 17, [6] * 4]
NEW = 6
SIZES: dict[str, Any] = {"new_tokens": NEW, "block_size": 4, "debug": True}


class Config(NamedTuple):
    num_slots: int = 3
    max_new_tokens: int = NEW


def test_every_root_holds_its_prompt_and_its_own_key() -> None:
    state, roots = start(MODEL, PROMPTS, seed=7, **SIZES)
    tokens, length = jax.device_get(compiled().branch_tokens(state, roots))
    assert [row[:n].tolist() for row, n in zip(tokens, length.tolist(), strict=True)] == PROMPTS
    keys = np.asarray(state.key)[roots].tolist()
    assert len({tuple(key) for key in keys}) == len(PROMPTS)
    debug.check(state.cache)
    # A key depends on the seed and the place alone.
    other, first = start(MODEL, [[9], [9] * 6], seed=7, **SIZES)
    assert np.asarray(other.key)[first].tolist() == keys[:2]
    other, first = start(MODEL, [[9]], seed=8, **SIZES)
    assert np.asarray(other.key)[first].tolist() != keys[:1]


def test_a_method_says_how_many_branches_and_tokens() -> None:
    state, _ = start(MODEL, PROMPTS, Config(), block_size=4)
    assert state.cache.num_slots == 3 * len(PROMPTS)
    assert state.cache.max_context == 17 + NEW
    assert start(MODEL, [[1, 2]], 5, **SIZES).state.cache.num_slots == 5


def test_all_branches_at_full_length_fit_in_the_blocks_exactly() -> None:
    state, roots = start(MODEL, PROMPTS, Config(), block_size=4)
    run = compiled()
    state, children = run.fork(state, np.repeat(roots, 2))
    lanes = np.concatenate([roots, np.asarray(children)])
    state, out = run.generate(MODEL, state, lanes, GenerateConfig(NEW), GREEDY)
    assert np.asarray(out.length).tolist() == [NEW] * 12
    usage = jax.device_get(jax.jit(stats)(state.cache))
    assert usage.blocks_free == 0
    assert usage.blocks_used == blocks_at_most(PROMPTS, 3, NEW, 4)


def test_no_more_than_the_memory_that_is_asked_for() -> None:
    with pytest.raises(ValueError, match="less than one block"):
        start(MODEL, PROMPTS, memory_fraction=1e-15, **SIZES)


def test_prompts_without_blocks_are_an_error() -> None:
    with pytest.raises(CapacityError, match="num_blocks is 7 and at least 9 are needed"):
        start(MODEL, PROMPTS, num_blocks=7, **SIZES)


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([], {}, "prompts is []; it takes a list of texts or of token ids"),
        (3, {}, "prompts is 3; it takes a list of texts or of token ids"),
        ([[1], []], {}, "prompt is empty; it must have at least one token"),
        ([1, 2], {}, "prompt is 1; it takes one text, or the token ids of one"),
        ([[1, 11]], {}, "prompt token 11 at place 1 is outside the vocabulary [0, 11)"),
        (["ab"], {}, "tokenizer is None and a prompt is a text; it needs one"),
        ("ab", {}, "tokenizer is None and a prompt is a text; it needs one"),
        ([[1]], {"new_tokens": None}, "new_tokens is None and the method has no max_new_tokens"),
        ([[1]], {"new_tokens": 0}, "new_tokens is 0; it must be at least 1"),
        ([[1]], {"method": 0}, "method is 0; it must be at least 1"),
        ([[1]], {"seed": 2**32}, "seed is 4294967296; it must be from 0 to 4294967295"),
    ],
)
def test_bad_arguments_are_named(prompts: Any, options: dict[str, Any], message: str) -> None:
    kind = PromptError if "rompt" in message else ValueError
    with pytest.raises(kind, match=re.escape(message)):
        start(MODEL, prompts, **{**SIZES, **options})
