"""Beam search on a tiny Llama against live transformers, which made the golden file too."""

from __future__ import annotations

import pytest

from dendrite_jax.search import BeamSearchConfig
from search.beam.beam_cases import CONFIGS, TOLERANCE, BeamCase, assert_engine_finds, load_golden
from search.beam.hf_beams import hf_beams

STOPS = [[5, 90], [3, 17], [64, 101]]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("case", range(len(STOPS)))
def test_beams_equal_live_transformers(config: BeamSearchConfig, case: int) -> None:
    assert_engine_finds(BeamCase(config, STOPS[case], hf_beams(config, STOPS[case])))


@pytest.mark.parametrize("golden", load_golden())
def test_the_golden_file_is_what_transformers_finds(golden: BeamCase) -> None:
    for beams, live in zip(golden.beams, hf_beams(golden.config, golden.stop_tokens), strict=True):
        assert [beam.tokens for beam in beams] == [beam.tokens for beam in live]
        for beam, other in zip(beams, live, strict=True):
            assert beam.score == pytest.approx(other.score, abs=TOLERANCE)
