"""Prefill in chunks and blocks of several sizes, against the dense decoder."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from jax.typing import ArrayLike

from dendrite_jax import engine
from dendrite_jax.cache import BranchError, CacheConfig, debug, raise_errors
from dendrite_jax.cache.state import CONTEXT_FULL, OUT_OF_BLOCKS
from dendrite_jax.engine import length_bucket
from dendrite_jax.kernels.dispatch import PREFILL_CHUNK
from engine.programs import (
    DECODER_TOLERANCE,
    LANES,
    PROMPT,
    bigram,
    branch_tokens,
    fork,
    next_logits,
    pad,
    prefill,
    run_prefill,
    start,
    step,
    tiny_decoder,
)
from models.dense_decoder import dense_logits
from models.tiny_models import raw_bits

MODEL = tiny_decoder()
PROMPTS = [
    (raw_bits(7, f"prompt {n}", n) % MODEL.vocab_size).astype(int).tolist() for n in (1, 5, 16, 12)
]


def assert_dense(logits: ArrayLike, tokens: list[int]) -> None:
    """Compares the logits [vocab] after some tokens with the dense decoder's."""
    expected = dense_logits(MODEL.config, MODEL.params, np.array([tokens]))[0, -1]
    assert np.max(np.abs(logits - expected)) < DECODER_TOLERANCE * np.max(np.abs(expected))


@pytest.mark.parametrize("chunk", [PROMPT, 5])
def test_chunks_of_any_size_give_what_one_shot_gives(chunk: int) -> None:
    state, ids = start(MODEL, [])
    state, stepped = run_prefill(MODEL, state, ids, PROMPTS, chunk)
    assert stepped.ok.all()
    assert state.cache.length[ids].tolist() == [len(prompt) for prompt in PROMPTS]
    assert state.cache.ledger.totals()["prefilled"] == sum(map(len, PROMPTS))
    for lane, prompt in enumerate(PROMPTS):
        assert_dense(stepped.logits[lane], prompt)
        np.testing.assert_array_equal(stepped.hidden[lane], state.hidden[ids[lane]])
    state, stepped = step(MODEL, state, ids, np.arange(LANES))
    for lane, prompt in enumerate(PROMPTS):
        assert_dense(stepped.logits[lane], [*prompt, lane])
    debug.check(state.cache)


@pytest.mark.slow
def test_the_block_size_changes_nothing() -> None:
    config = CacheConfig(num_blocks=20, num_slots=12, max_context=40, block_size=16)
    state, ids = start(MODEL, PROMPTS, config=config)
    state, children = fork(state, ids)
    for branches in (children, ids):
        state, stepped = step(MODEL, state, branches, np.arange(LANES))
        for lane, prompt in enumerate(PROMPTS):
            assert_dense(stepped.logits[lane], [*prompt, lane])


def test_a_second_prefill_goes_on_where_the_first_ended() -> None:
    state, ids = start(MODEL, PROMPTS)
    state, stepped = run_prefill(MODEL, state, ids, PROMPTS[::-1])
    for lane, (first, second) in enumerate(zip(PROMPTS, PROMPTS[::-1], strict=True)):
        assert_dense(stepped.logits[lane], first + second)


def test_scored_tokens_have_the_logits_after_each() -> None:
    model = bigram()
    state, ids = start(model, [[1], [2]])
    tokens = raw_bits(3, "scored", LANES * 6).reshape(LANES, 6) % model.vocab_size
    score = jax.jit(engine.score_tokens, donate_argnums=1)
    state, logits, ok = score(model, state, ids, tokens.astype(int), pad([6, 1, 0, 7]))
    assert ok.tolist() == [True, True, False, False]
    for lane, count in enumerate((6, 1)):
        np.testing.assert_array_equal(logits[lane, :count], model.table[tokens[lane, :count]])
    assert state.cache.length[ids].tolist() == [7, 2, 0, 0]
    np.testing.assert_array_equal(state.hidden[ids[:2]], model.table[tokens[[0, 1], [5, 0]]])


@pytest.mark.parametrize("chunk", [PROMPT, 5])
def test_unusable_lanes_take_nothing_and_leave_the_others_alone(chunk: int) -> None:
    model = bigram()
    state, ids = start(model, [])
    lanes = [ids[0], ids[0], -1, ids[1]]
    state, stepped = run_prefill(model, state, lanes, [[3] * 7, [4] * 7, [5] * 7, []], chunk)
    assert stepped.ok.tolist() == [True, False, False, False]
    tokens, length = branch_tokens(state, ids)
    assert length.tolist() == [7, 0, 0, 0]
    assert tokens[0, :7].tolist() == [3] * 7
    np.testing.assert_array_equal(stepped.logits[0], model.table[3])
    with pytest.raises(BranchError, match="twice"):
        raise_errors(state.cache)


@pytest.mark.parametrize("chunk", [PROMPT, 5])
def test_a_count_beyond_the_tokens_takes_nothing(chunk: int) -> None:
    model = bigram()
    state, ids = start(model, [])
    tokens = np.full((LANES, PROMPT), 3)
    count = pad([PROMPT + 1, 9, PROMPT, 1000])
    state, stepped = prefill(model, state, ids, tokens, count, chunk=chunk)
    assert stepped.ok.tolist() == [False, True, True, False]
    assert state.cache.length[ids].tolist() == [0, 9, PROMPT, 0]
    debug.check(state.cache)


def test_a_prompt_beyond_the_context_is_flagged_and_the_others_go_on() -> None:
    model = bigram()
    state, ids = start(model, [[1] * PROMPT] * 4)
    state, _ = run_prefill(model, state, ids[:1], [[2] * 9])
    state, stepped = run_prefill(model, state, ids, [[2] * PROMPT] * 4)
    assert stepped.ok.tolist() == [False, True, True, True]
    assert state.cache.error[ids].tolist() == [CONTEXT_FULL, 0, 0, 0]
    assert state.cache.length[ids].tolist() == [25, 32, 32, 32]


def test_a_pool_too_small_for_the_batch_stops_the_last_lanes_only() -> None:
    model = bigram()
    state, ids = start(model, [[1] * PROMPT] * 4)  # 16 of 40 blocks
    state, _ = run_prefill(model, state, ids, [[2] * PROMPT] * 4)  # 32
    state, children = fork(state, ids)
    state, stepped = run_prefill(model, state, children, [[3] * 8, [3] * 8, [3] * 8, [3] * 7])
    assert stepped.ok.all()  # 40
    state, stepped = step(model, state, ids, np.zeros(LANES, int))
    assert stepped.ok.tolist() == [False] * 4
    assert state.cache.error[ids].tolist() == [OUT_OF_BLOCKS] * 4
    assert state.cache.length[ids].tolist() == [32] * 4


def test_buckets_are_powers_of_two_and_then_whole_chunks() -> None:
    expected = {1: 16, 16: 16, 17: 32, 33: 64, 512: 512, 513: 1024, 1024: 1024, 1025: 1536}
    assert PREFILL_CHUNK == 512
    assert {length: length_bucket(length) for length in expected} == expected
    assert length_bucket(3, smallest=1) == 4
    assert all(length_bucket(length) >= length for length in range(1, 3000))


def test_the_next_logits_are_those_of_the_last_call() -> None:
    state, ids = start(MODEL, PROMPTS)
    state, stepped = step(MODEL, state, pad([ids[2], -1, ids[0]]), np.arange(LANES))
    again = next_logits(MODEL, state, pad([ids[2], -1, ids[0]]))
    for lane in (0, 2):
        np.testing.assert_array_equal(stepped.logits[lane], again[lane])


def test_chunks_of_a_prompt_that_cannot_fit_leave_the_room_to_its_neighbour() -> None:
    model = bigram()
    config = CacheConfig(num_blocks=5, num_slots=2, max_context=112, block_size=16)
    state = engine.init(model, config)
    state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), 2))
    tokens = np.full((2, 96), 3)
    state, stepped = prefill(model, state, ids, tokens, np.array([96, 40]), chunk=16)
    assert stepped.ok.tolist() == [False, True]
    assert state.cache.length.tolist() == [0, 40]
    assert state.cache.error.tolist() == [OUT_OF_BLOCKS, 0]
    assert int(np.sum(state.cache.pool.ref_count)) == 3
    assert state.cache.ledger.totals()["prefilled"] == 40
    np.testing.assert_array_equal(stepped.logits[1], model.table[3])


def test_chunks_of_a_prompt_that_cannot_fit_take_nothing() -> None:
    model = bigram()
    config = CacheConfig(num_blocks=3, num_slots=1, max_context=112, block_size=16)
    state = engine.init(model, config)
    state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), 1))
    state, stepped = prefill(model, state, ids, np.full((1, 60), 3), np.array([60]), chunk=16)
    assert stepped.ok.tolist() == [False]
    assert state.cache.length.tolist() == [0]
    assert int(np.sum(state.cache.pool.ref_count)) == 0
    assert state.cache.ledger.totals()["prefilled"] == 0
