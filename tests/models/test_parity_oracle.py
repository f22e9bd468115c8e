"""The engine and the dense decoder against live transformers, for all of the vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dendrite_jax.models import CheckpointWarning, load_params, read_config
from models import hf_oracle
from models.dense_decoder import dense_logits
from models.engine_adapter import run_prefill_and_decode
from models.parity_cases import (
    NAMES,
    STEPS,
    TOLERANCE,
    live_logits,
    load_case,
    load_golden,
    model_folder,
    root_mean_square,
)
from models.tiny_models import CASES, PROMPT_LENGTHS, prompts, tiny_weights, write_folder


def assert_close(logits: np.ndarray, live: np.ndarray) -> None:
    assert logits.shape == live.shape
    error = np.abs(logits - live).max(axis=-1) / root_mean_square(live)
    assert np.max(error) < TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_greedy_tokens_equal_live_transformers(name: str) -> None:
    case = load_case(name)
    run = run_prefill_and_decode(case.config, case.params, case.prompts, STEPS)
    with model_folder(name, load_golden(name)[0]) as folder:
        model = hf_oracle.load(folder)
    for first, length in enumerate(PROMPT_LENGTHS):
        rows = range(first, len(case.prompts), len(PROMPT_LENGTHS))
        fed = [np.concatenate([case.prompts[row], run.greedy[row, :STEPS]]) for row in rows]
        live = hf_oracle.logits(model, np.stack(fed))
        ours = [np.concatenate([run.prompt_logits[row], run.decode_logits[row]]) for row in rows]
        assert_close(np.stack(ours), live)
        np.testing.assert_array_equal(run.greedy[rows], live[:, length - 1 :].argmax(axis=-1))


def test_a_tied_model_with_an_output_of_its_own_equals_live_transformers(tmp_path: Path) -> None:
    fields = CASES["qwen2_gqa7_tied"]
    weights = tiny_weights(fields, seed=0)
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"][::-1].copy()
    write_folder(tmp_path, fields, weights)
    config = read_config(tmp_path)
    with pytest.warns(CheckpointWarning, match=r"lm_head\.weight differs from .*both are used"):
        params = load_params(tmp_path, config)
    tokens = prompts(config.vocab_size, seed=0)[:2]
    run = run_prefill_and_decode(config, params, tokens, steps=1)
    model = hf_oracle.load(tmp_path)
    for row, prompt in enumerate(tokens):
        assert_close(run.prompt_logits[row][None], hf_oracle.logits(model, prompt[None]))


@pytest.mark.parametrize("name", NAMES)
def test_dense_decoder_equals_live_transformers_on_other_tokens(name: str) -> None:
    case = load_case(name)
    tokens = np.random.default_rng(0).integers(case.config.vocab_size, size=(2, 200))
    assert_close(dense_logits(case.config, case.params, tokens), live_logits(name, tokens))
