"""Beam search on a tiny Llama against what transformers found, from a golden file."""

from __future__ import annotations

import pytest

from search.beam.beam_cases import BeamCase, assert_engine_finds, load_golden

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("case", load_golden())
def test_beams_equal_transformers(case: BeamCase) -> None:
    assert_engine_finds(case)
