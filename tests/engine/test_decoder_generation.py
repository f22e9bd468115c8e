"""Generation with a real decoder: against the dense one, in any company, holding one pool."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig, block_bytes
from dendrite_jax.engine import GenerateConfig, Generated, Sampling, State
from engine.programs import (
    CACHE,
    DECODER_TOLERANCE,
    LANES,
    branch_tokens,
    fork,
    pad,
    start,
    tiny_decoder,
)
from engine.sampling_oracle import log_softmax
from models.dense_decoder import dense_logits
from models.tiny_models import raw_bits

MODEL = tiny_decoder()
NEW_TOKENS = 8
CONFIG = GenerateConfig(NEW_TOKENS)
PROMPTS = [
    (raw_bits(9, f"prompt {n}", n) % MODEL.vocab_size).astype(int).tolist() for n in (1, 6, 16, 11)
]
TEMPERATURES = np.array([0.0, 1.0, 0.0, 0.8], np.float32)


@jax.jit(donate_argnums=0)
def generate(state: State, ids: jax.Array, temperature: jax.Array) -> tuple[State, Generated]:
    return engine.generate(MODEL, state, ids, CONFIG, Sampling(temperature=temperature))


def test_a_context_beyond_the_models_own_is_refused_unless_asked_for() -> None:
    model = MODEL.replace(config=replace(MODEL.config, max_position=30))
    fits = CacheConfig(num_blocks=8, num_slots=2, max_context=30)
    beyond = replace(fits, max_context=31)
    jax.eval_shape(partial(engine.init, config=fits), model)
    message = r"max_context is 31; the model was made for 30 tokens \(max_position\)"
    with pytest.raises(ValueError, match=message):
        engine.init(model, beyond)
    longer = partial(engine.init, config=beyond, allow_longer_context=True)
    assert jax.eval_shape(longer, model).cache.table.shape == (2, 2)


@pytest.mark.slow
def test_logprobs_and_greedy_choices_are_those_of_the_dense_decoder() -> None:
    state, ids = start(MODEL, PROMPTS)
    state, out = generate(state, ids, TEMPERATURES)
    assert out.length.tolist() == [NEW_TOKENS] * LANES
    for lane, prompt in enumerate(PROMPTS):
        tokens = out.tokens[lane].tolist()
        every = dense_logits(MODEL.config, MODEL.params, np.array([prompt + tokens]))[0]
        logits = every[len(prompt) - 1 : -1]
        tolerance = 2 * DECODER_TOLERANCE * np.max(np.abs(logits))
        logprobs = log_softmax(logits)[np.arange(NEW_TOKENS), tokens]
        assert np.max(np.abs(out.raw_logprobs[lane] - logprobs)) < tolerance
        if TEMPERATURES[lane] == 0:
            chosen = logits[np.arange(NEW_TOKENS), tokens]
            assert np.all(logits.max(axis=1) - chosen < tolerance)
        scaled = log_softmax(logits / (TEMPERATURES[lane] or 1.0))
        logprobs = scaled[np.arange(NEW_TOKENS), tokens]
        assert np.max(np.abs(out.logprobs[lane] - logprobs)) < tolerance / 0.8


def test_company_and_place_change_no_token() -> None:
    state, ids = start(MODEL, PROMPTS)
    state, together = generate(state, ids, TEMPERATURES)
    for order in ([3, 2, 1, 0], [1], [-1, 3, 0]):
        state, ids = start(MODEL, PROMPTS)
        lanes = pad([ids[lane] if lane >= 0 else -1 for lane in order])
        state, out = generate(state, lanes, TEMPERATURES[pad(order)])
        for place, lane in enumerate(order):
            if lane >= 0:
                assert out.tokens[place].tolist() == together.tokens[lane].tolist()


def test_forks_in_the_middle_of_a_block_go_their_own_ways() -> None:
    state, ids = start(MODEL, PROMPTS)
    state, children = fork(state, pad([ids[1]] * LANES))
    state, out = generate(state, children, np.full(LANES, 1.5, np.float32))
    assert len({tuple(row) for row in out.tokens.tolist()}) == LANES
    tokens, length = branch_tokens(state, children)
    assert length.tolist() == [6 + NEW_TOKENS] * LANES
    for lane in range(LANES):
        branch = tokens[lane, : length[lane]]
        assert branch.tolist() == PROMPTS[1] + out.tokens[lane].tolist()
        logits = dense_logits(MODEL.config, MODEL.params, np.array([branch]))[0, 5:-1]
        logprobs = log_softmax(logits)[np.arange(NEW_TOKENS), out.tokens[lane]]
        tolerance = 2 * DECODER_TOLERANCE * np.max(np.abs(logits))
        assert np.max(np.abs(out.raw_logprobs[lane] - logprobs)) < tolerance


def test_the_loop_holds_one_pool() -> None:
    config = CacheConfig(num_blocks=16384, num_slots=12, max_context=CACHE.max_context)
    pool_bytes = config.num_blocks * block_bytes(MODEL.kv_shape, dtype=jnp.float32)
    state = jax.eval_shape(lambda: engine.init(MODEL, config))
    ids = jax.ShapeDtypeStruct((LANES,), jnp.int32)
    temperature = jax.ShapeDtypeStruct((LANES,), jnp.float32)
    memory = generate.lower(state, ids, temperature).compile().memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes > pool_bytes
    assert memory.temp_size_in_bytes < pool_bytes / 50
