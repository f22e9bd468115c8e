"""The engine against live transformers, in float32, for every column of the vocabulary."""

from __future__ import annotations

import numpy as np
import pytest

from models import hf_oracle
from models.engine_adapter import run_prefill_and_decode
from models.parity_cases import (
    NAMES,
    STEPS,
    assert_parity,
    load_case,
    load_golden,
    model_folder,
)


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_greedy_tokens_equal_live_transformers(name: str) -> None:
    case = load_case(name)
    with model_folder(name, load_golden(name)[0]) as folder:
        model = hf_oracle.load(folder)
    columns = np.arange(case.config.vocab_size)
    live, _ = hf_oracle.compute_golden(model, case.prompts, columns)
    run = run_prefill_and_decode(case.config, case.params, case.prompts, STEPS)
    assert_parity(live, run.prompt_logits, run.decode_logits)
    np.testing.assert_array_equal(run.greedy, live.greedy)
    np.testing.assert_array_equal(case.golden.greedy, live.greedy)
