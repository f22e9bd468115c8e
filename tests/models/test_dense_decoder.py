"""The dense float64 oracle is itself right: transformers' golden logits, every family."""

from __future__ import annotations

import numpy as np
import pytest

from models.dense_decoder import dense_logits
from models.parity_cases import NAMES, STEPS, assert_parity, load_case
from models.tiny_models import PROMPT_LENGTHS


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_dense_logits_equal_transformers(name: str) -> None:
    case = load_case(name)
    prompt_logits, decode_logits = [], []
    for row, length in enumerate(PROMPT_LENGTHS):
        tokens = np.concatenate([case.prompts[row], case.golden.greedy[row, :STEPS]])
        logits = dense_logits(case.config, case.params, tokens[None])[0]
        prompt_logits.append(logits[:length])
        decode_logits.append(logits[length:])
    assert_parity(case.golden, prompt_logits, decode_logits)


def test_precision_is_the_one_asked_for() -> None:
    case = load_case("llama31_rope")
    tokens = case.prompts[5][None]
    single = dense_logits(case.config, case.params, tokens, np.float32)
    double = dense_logits(case.config, case.params, tokens)
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    assert 0 < np.abs(single - double).max() < 1e-3
