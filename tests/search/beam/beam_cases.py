"""Beam searches of a tiny Llama whose results transformers gives too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import jax

from dendrite_jax.search import BeamSearchConfig
from engine.programs import pad, start, tiny_decoder
from models.tiny_models import raw_bits
from search.beam.beam_oracle import Beam
from search.programs import CACHE, assert_only_roots_held, beam_search

PROMPTS = [
    (raw_bits(5, f"beams {n}", 7) % tiny_decoder().vocab_size).astype(int).tolist()
    for n in range(4)
]
WIDTH, NEW_TOKENS = 4, 10
TOLERANCE = 1e-4
"""Of scores: two float32 implementations of the model differ by a few 1e-5 in a logit."""
GOLDEN = Path(__file__).with_name("golden") / "beams.json"


class BeamCase(NamedTuple):
    """A search of all PROMPTS and its result, per prompt, best first."""

    config: BeamSearchConfig
    stop_tokens: list[int]
    beams: list[list[Beam]]


CONFIGS = [
    BeamSearchConfig(WIDTH, NEW_TOKENS),
    BeamSearchConfig(WIDTH, NEW_TOKENS, length_penalty=0.3, early_stopping=True),
    BeamSearchConfig(7, NEW_TOKENS, length_penalty=1.5, early_stopping="never"),
]


def load_golden() -> list[BeamCase]:
    """The cases that `make_beam_golden.py` wrote."""
    return [
        BeamCase(
            BeamSearchConfig(**case["config"]),
            case["stop_tokens"],
            [[Beam(tuple(tokens), score=score) for tokens, score in row] for row in case["beams"]],
        )
        for case in json.loads(GOLDEN.read_text())
    ]


def save_golden(cases: list[BeamCase]) -> None:
    """Writes the golden file."""
    GOLDEN.parent.mkdir(exist_ok=True)
    content = [
        {
            "config": vars(case.config),
            "stop_tokens": case.stop_tokens,
            "beams": [[[b.tokens, round(b.score, 6)] for b in beams] for beams in case.beams],
        }
        for case in cases
    ]
    GOLDEN.write_text(json.dumps(content) + "\n")


def assert_engine_finds(case: BeamCase) -> None:
    """Runs the case's search in the engine and compares every beam and score."""
    model = tiny_decoder()
    state, ids = start(model, PROMPTS, config=CACHE)
    stops = pad(case.stop_tokens, width=2)
    state, found = beam_search(model, state, ids, None, config=case.config, stop_tokens=stops)
    assert_only_roots_held(state, ids)
    found = jax.device_get(found)
    for problem, beams in enumerate(case.beams):
        assert len(beams) == case.config.width
        for rank, beam in enumerate(beams):
            length = found.length[problem, rank]
            assert found.tokens[problem, rank, :length].tolist() == list(beam.tokens)
            assert abs(found.values[problem, rank] - beam.score) < TOLERANCE
