"""Logit processors against transformers' own."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
import torch
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from dendrite_jax.engine import Sampling
from dendrite_jax.engine.sampling import process_logits
from models.tiny_models import raw_bits, uniform

LANES, VOCAB = 50, 300
TOLERANCE = 8 * 2**-24
"""Of the largest logit: two quotients in either float32 implementation."""
PROCESSORS = {
    "repetition_penalty": RepetitionPenaltyLogitsProcessor,
    "temperature": TemperatureLogitsWarper,
    "top_k": TopKLogitsWarper,
    "top_p": TopPLogitsWarper,
    "min_p": MinPLogitsWarper,
}


@pytest.mark.parametrize(
    "knobs",
    [
        {"repetition_penalty": 1.3},
        {"temperature": 0.7},
        {"top_k": 20},
        {"top_k": 20, "top_p": 0.7},
        {"top_p": 0.85},
        {"min_p": 0.05},
        {"repetition_penalty": 0.8, "temperature": 1.4, "top_k": 50, "top_p": 0.9, "min_p": 0.02},
        {"temperature": 0.5, "top_p": 0.5, "min_p": 0.3},
    ],
)
def test_processed_logits_equal_transformers(knobs: dict[str, Any]) -> None:
    assert_as_transformers(6 * uniform(0, "logits", (LANES, VOCAB)), knobs)


@pytest.mark.parametrize(
    "knobs", [{"top_k": 1}, {"top_k": 20}, {"temperature": 0.7, "top_k": 90, "min_p": 0.05}]
)
def test_equal_logits_equal_transformers(knobs: dict[str, Any]) -> None:
    # About thirty values, each ten times in a row.
    assert_as_transformers(np.round(12 * uniform(0, "logits", (LANES, VOCAB))) / 2, knobs)


def assert_as_transformers(logits: np.ndarray, knobs: dict[str, Any]) -> None:
    held = (raw_bits(0, "held", LANES * 30) % VOCAB).astype(np.int64).reshape(LANES, 30)
    seen = np.zeros((LANES, VOCAB), bool)
    seen[np.arange(LANES)[:, None], held] = True
    chain = LogitsProcessorList([PROCESSORS[name](value) for name, value in knobs.items()])
    expected = chain(torch.from_numpy(held), torch.from_numpy(logits)).numpy()
    found = np.asarray(jax.jit(process_logits)(logits, Sampling(**knobs), seen))
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    kept = np.isfinite(found)
    assert np.max(np.abs(found[kept] - expected[kept])) <= TOLERANCE * np.abs(expected[kept]).max()
