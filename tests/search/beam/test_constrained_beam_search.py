"""Beam search under grammars against plain Python that replays llguidance for every beam."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np
import pytest
from llguidance import LLMatcher

from dendrite_jax import grammar as gr
from dendrite_jax import search
from dendrite_jax.search import BeamSearchConfig, SearchResult
from engine.constraint_programs import (
    END,
    REGEXES,
    TOKENS,
    constrain,
    model,
    opened,
    prompt,
    regex_root,
    stacked,
    text_of,
)
from engine.sampling_oracle import log_softmax
from grammar.oracle import mask_of
from search.beam.beam_oracle import Beams
from search.beam.beam_oracle import beam_search as plain_beam_search

PROMPTS = ["a", "{", "name", "12"]
CONFIGS = [
    BeamSearchConfig(width=3, max_new_tokens=8),
    BeamSearchConfig(width=2, max_new_tokens=8, length_penalty=0.0, early_stopping=True),
]
TOLERANCE = 1e-4
"""Of logprobs of size 100 at most, each a sum of up to 8 terms in float32."""

beam_search = jax.jit(search.beam_search, static_argnames="config", donate_argnums=1)


def allowed_after(root: LLMatcher | None, tokens: Sequence[int]) -> np.ndarray:
    """The mask after a replay from the start of the text."""
    if root is None:
        return np.ones(len(TOKENS), bool)
    here = root.deep_copy()
    assert here.validate_tokens(list(tokens)) == len(tokens)
    for token in tokens:
        assert here.consume_token(token)
    return mask_of(here)


def masked_logprobs(
    root: LLMatcher | None, held: Sequence[int]
) -> Callable[[Sequence[int]], np.ndarray]:
    """Raw log-probabilities of the token after new ones, −inf where llguidance forbids it."""
    logprobs = log_softmax(np.asarray(model().table))

    def after(tokens: Sequence[int]) -> np.ndarray:
        row = logprobs[[*held, *tokens][-1]]
        return np.where(allowed_after(root, tokens), row, -np.inf)

    return after


def oracle(root: LLMatcher | None, held: Sequence[int], config: BeamSearchConfig) -> Beams:
    stops = [] if root is None else [END]
    return plain_beam_search(masked_logprobs(root, held), stop_tokens=stops, **vars(config))


@functools.cache
def found(config: BeamSearchConfig) -> SearchResult:
    """A search under three grammars, and one without."""
    state, roots = opened(PROMPTS)
    index = np.array([0, 1, 2, gr.NO_GRAMMAR], np.int32)
    state = constrain(state, roots, stacked(), index)
    _, beams = beam_search(model(), state, roots, None, config=config)
    return jax.device_get(beams)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_beams_are_those_of_a_search_that_replays_llguidance(config: BeamSearchConfig) -> None:
    beams = found(config)
    grammars = [*(regex_root(pattern) for pattern in REGEXES), None]
    for problem, root in enumerate(grammars):
        expected = oracle(root, prompt(PROMPTS[problem]), config)
        assert expected.clear
        for rank, beam in enumerate(expected.beams):
            length = beams.length[problem, rank]
            assert beams.tokens[problem, rank, :length].tolist() == list(beam.tokens)
            assert beams.tree.value[problem, beams.answers[problem, rank]] == pytest.approx(
                beam.logprob, abs=TOLERANCE
            )
            assert beams.values[problem, rank] == pytest.approx(beam.score, abs=TOLERANCE)
        assert np.isneginf(beams.values[problem, len(expected.beams) :]).all()


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS)
def test_every_beam_is_a_text_or_the_beginning_of_one(config: BeamSearchConfig) -> None:
    beams = found(config)
    ended = 0
    for problem, pattern in enumerate(REGEXES):
        for rank in range(config.width):
            tokens = beams.tokens[problem, rank, : beams.length[problem, rank]].tolist()
            allowed_after(regex_root(pattern), tokens)
            ended += END in tokens
            assert END not in tokens[:-1]
    assert ended >= len(REGEXES)
    assert b'"name": ' in text_of(beams.tokens[0, 0].tolist())
