"""Beam search in plain Python and float64, with the rules of Hugging Face's `generate`."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

Logprobs = Callable[[Sequence[int]], np.ndarray]
"""Log-probabilities f64[vocab] of the token after the given new ones."""


@dataclass(frozen=True)
class Beam:
    """A sequence of new tokens, its log-probability and that under the length penalty."""

    tokens: tuple[int, ...]
    logprob: float = math.nan
    score: float = math.nan


@dataclass(frozen=True)
class Beams:
    """What a search found, best first, and whether float32 would surely find the same."""

    beams: list[Beam]
    clear: bool


def beam_search(
    logprobs: Logprobs,
    *,
    width: int,
    max_new_tokens: int,
    length_penalty: float,
    early_stopping: bool,
    stop_tokens: Collection[int] = (),
    margin: float = 1e-4,
) -> Beams:
    """Keeps the `width` best beams that run on and the `width` best that have finished.

    A step ranks (1 + stop tokens) · width continuations, 2 · width at least; a stop among the best
    `width` of them finishes a beam, one further down is lost.
    """
    running = [Beam((), 0.0, 0.0)]
    finished: list[Beam] = []
    clear = True
    for step in range(1, max_new_tokens + 1):
        every = [
            Beam((*beam.tokens, token), total, total / step**length_penalty)
            for beam in running
            for token, logprob in enumerate(logprobs(beam.tokens))
            if np.isfinite(total := beam.logprob + logprob)
        ]
        every.sort(key=lambda beam: -beam.logprob)
        ranked = every[: max(2, 1 + len(stop_tokens)) * width]
        clear &= _is_clear([beam.logprob for beam in every[: len(ranked) + 1]], margin)
        ends = [beam.tokens[-1] in stop_tokens or step == max_new_tokens for beam in ranked]
        finished += [beam for beam, end in zip(ranked[:width], ends, strict=False) if end]
        finished.sort(key=lambda beam: -beam.score)
        clear &= _is_clear([beam.score for beam in finished[: width + 1]], margin)
        finished = finished[:width]
        running = [beam for beam, end in zip(ranked, ends, strict=True) if not end][:width]
        if not running:
            break
        if len(finished) == width:
            lead = running[0].score - finished[-1].score
            clear &= early_stopping or abs(lead) > margin
            if early_stopping or lead <= 0:
                break
    return Beams(finished, clear)


def _is_clear(descending: list[float], margin: float) -> bool:
    return all(better - worse > margin for better, worse in pairwise(descending))
