"""The engine against Hugging Face transformers, in float32, by golden files."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from models.engine_adapter import Run, run_prefill_and_decode
from models.parity_cases import NAMES, STEPS, ParityCase, assert_parity, load_case

QUICK = ("llama31_rope", "qwen3_gqa4_window_tied")


class Compared(NamedTuple):
    case: ParityCase
    run: Run


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in NAMES],
)
def compared(request: pytest.FixtureRequest) -> Compared:
    case = load_case(request.param)
    return Compared(case, run_prefill_and_decode(case.config, case.params, case.prompts, STEPS))


def test_logits_equal_transformers_in_prefill_and_decode(compared: Compared) -> None:
    run = compared.run
    assert_parity(compared.case.golden, run.prompt_logits, run.decode_logits)


def test_greedy_tokens_of_fifty_prompts_equal_transformers(compared: Compared) -> None:
    np.testing.assert_array_equal(compared.run.greedy, compared.case.golden.greedy)


@pytest.mark.slow
@pytest.mark.parametrize(("block_size", "chunk"), [(8, None), (32, 13)])
def test_block_size_and_chunked_prefill_change_no_token(block_size: int, chunk: int | None) -> None:
    case = load_case("qwen2_upper_window")
    run = run_prefill_and_decode(
        case.config, case.params, case.prompts, STEPS, block_size=block_size, chunk=chunk
    )
    np.testing.assert_array_equal(run.greedy, case.golden.greedy)
