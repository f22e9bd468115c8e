"""The engine against Hugging Face transformers, in float32.

Expectations come from golden files; the tests marked `oracle` compute them live, for every column
of the vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from models.dense_decoder import dense_logits  # noqa
from models.engine_adapter import Run, run_prefill_and_decode
from models.parity_cases import NAMES, STEPS, ParityCase, load_case
from models.tiny_models import PROMPT_LENGTHS

TOLERANCE = 1e-4
"""Of the root mean square of a position's logits."""
FAMILIES = ("llama31_rope", "mistral_window_5", "qwen2_upper_window", "qwen3_gqa8_biases")


class Compared(NamedTuple):
    case: ParityCase
    run: Run


@pytest.fixture(scope="module", params=NAMES)
def compared(request: pytest.FixtureRequest) -> Compared:
    case = load_case(request.param)
    return Compared(case, run_prefill_and_decode(case.config, case.params, case.prompts, STEPS))


def test_logits_equal_transformers_in_prefill_and_decode(compared: Compared) -> None:
    golden = compared.case.golden
    for row, length in enumerate(PROMPT_LENGTHS):
        logits = np.concatenate([compared.run.prompt_logits[row], compared.run.decode_logits[row]])
        assert logits.shape[0] == length + STEPS
        scale = np.sqrt(np.mean(logits**2, axis=-1))
        error = np.abs(logits[:, golden.columns] - golden.logits[row]).max(axis=-1)
        assert np.max(error / scale) < TOLERANCE
        error = np.abs(np.logaddexp.reduce(logits, axis=-1) - golden.logsumexp[row])
        assert np.max(error / scale) < TOLERANCE


def test_greedy_tokens_of_fifty_prompts_equal_transformers(compared: Compared) -> None:
    np.testing.assert_array_equal(compared.run.greedy, compared.case.golden.greedy)
