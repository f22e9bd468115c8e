"""A few steps of training end in a checkpoint that the project's own loader runs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.models import load
from dendrite_jax.models.decoder import Decoder
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.graph import Split, StateGraph
from dendrite_jax.tasks.game24.training.checkpoint import save_checkpoint
from dendrite_jax.tasks.game24.training.network import forward
from dendrite_jax.tasks.game24.training.recipe import (
    StepMetrics,
    TrainOptions,
    TrainState,
    init_state,
    llama_config,
    make_train_call,
)
from dendrite_jax.tasks.game24.training.sampling import TEXT_LENGTH, device_tables

pytestmark = pytest.mark.slow

CONFIG = llama_config(hidden=32, layers=2, heads=2, kv_heads=1, intermediate=64)
OPTIONS = TrainOptions(
    rows=16,
    json_rows=0,
    learning_rate=1e-2,
    warmup_steps=1,
    steps_per_call=3,
    compute_dtype="float32",
)

Trained = tuple[TrainState, list[StepMetrics]]
"""The state after two calls of three steps each, and the metrics of each call."""


@pytest.fixture(scope="module")
def trained(wide: tuple[StateGraph, Split]) -> Trained:
    tables = device_tables(*wide)
    train_call = make_train_call(CONFIG, OPTIONS)
    state, metrics = init_state(CONFIG, OPTIONS), []
    for _ in range(2):
        state, call_metrics = train_call(state, tables, jnp.float32(6))
        metrics.append(jax.device_get(call_metrics))
    return state, metrics


def test_loss_falls_from_that_of_a_guess(trained: Trained) -> None:
    state, (first, second) = trained
    assert int(state.step) == 6
    for name in ("policy_loss", "arithmetic_loss", "verdict_loss"):
        before, after = getattr(first, name), getattr(second, name)
        assert after < before < np.log(vocab.VOCABULARY_SIZE) + 0.2
    assert 16 * 30 < first.tokens < 16 * TEXT_LENGTH


def test_average_lies_between_the_start_and_the_end(trained: Trained) -> None:
    state, _ = trained
    start = init_state(CONFIG, OPTIONS).params["embed"]
    distance = jnp.linalg.norm(state.params["embed"] - start)
    assert jnp.linalg.norm(state.average["embed"] - state.params["embed"]) < distance
    assert jnp.linalg.norm(state.average["embed"] - start) < distance


def test_checkpoint_loads_and_gives_the_logits_of_training(
    trained: Trained, tmp_path: Path
) -> None:
    params = trained[0].params
    save_checkpoint(tmp_path / "model", params, CONFIG, {"step": 6})
    model, tokenizer = load(tmp_path / "model", dtype=jnp.float32)
    assert json.loads((tmp_path / "model" / "training.json").read_text()) == {"step": 6}

    text = "Make 24 from 4 5 6 10\n 10 - 4 = 6 (left: 5 6 6) sure\n 6 / 5 = 6/5 (left: 6/5 6)"
    tokens = jnp.array([[vocab.BOS, *tokenizer.encode(text)]])

    @jax.jit
    def score(model: Decoder, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = engine.init(model, CacheConfig(num_blocks=4, num_slots=1, max_context=64))
        state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), 1))
        count = jnp.array([tokens.shape[1]])
        _, logits, ok = engine.score_tokens(model, state, ids, tokens, count)
        return logits, ok

    logits, ok = score(model, tokens)
    assert ok.all()
    # Weights are stored in bf16; everything after is float32, sums in another order.
    rounded = jax.tree.map(lambda p: p.astype(jnp.bfloat16).astype(jnp.float32), params)
    expected = jax.jit(partial(forward, config=CONFIG))(rounded, tokens)
    assert float(jnp.std(expected)) > 0.3
    np.testing.assert_allclose(logits, expected, atol=2e-5 * float(jnp.abs(expected).max()))


def test_unknown_optimizer_is_named() -> None:
    with pytest.raises(ValueError, match="optimizer: 'sgd' is neither 'adamw' nor 'muon'"):
        init_state(CONFIG, TrainOptions(optimizer="sgd"))
