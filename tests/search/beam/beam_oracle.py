"""Beam search in plain Python and float64, with the rules of Hugging Face's `generate`."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
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


@dataclass
class _Group:
    """The beams of one group, while it searches."""

    running: list[Beam] = field(default_factory=lambda: [Beam((), 0.0, 0.0)])
    finished: list[Beam] = field(default_factory=list)
    searching: bool = True


def beam_search(
    logprobs: Logprobs,
    *,
    width: int,
    max_new_tokens: int,
    length_penalty: float,
    early_stopping: bool | str,
    gnmt: bool = False,
    groups: int = 1,
    diversity_penalty: float = 0.0,
    stop_tokens: Collection[int] = (),
    margin: float = 1e-4,
) -> Beams:
    """In each of `groups` groups, keeps the best beams that run on and the best that have finished.

    A step ranks (1 + stop tokens) continuations a beam of a group, 2 at least; a stop among the
    best of them, one a beam, finishes a beam, one further down is lost. A beam pays for each beam
    of an earlier group that takes the same token in the same step.
    """
    size = width // groups
    every_group = [_Group() for _ in range(groups)]
    clear = True

    def score(logprob: float, length: int) -> float:
        return logprob / ((5 + length) / 6 if gnmt else length) ** length_penalty

    for step in range(1, max_new_tokens + 1):
        taken: Counter[int] = Counter()
        for group in every_group:
            if not group.searching:
                continue
            every = [
                Beam((*beam.tokens, token), total, score(total, step))
                for beam in group.running
                for token, logprob in enumerate(logprobs(beam.tokens))
                if np.isfinite(total := beam.logprob + logprob - diversity_penalty * taken[token])
            ]
            every.sort(key=lambda beam: -beam.logprob)
            ranked = every[: max(2, 1 + len(stop_tokens)) * size]
            clear &= _is_clear([beam.logprob for beam in every[: len(ranked) + 1]], margin)
            ends = [beam.tokens[-1] in stop_tokens or step == max_new_tokens for beam in ranked]
            group.finished += [beam for beam, end in zip(ranked[:size], ends, strict=False) if end]
            group.finished.sort(key=lambda beam: -beam.score)
            clear &= _is_clear([beam.score for beam in group.finished[: size + 1]], margin)
            group.finished = group.finished[:size]
            running = [beam for beam, end in zip(ranked, ends, strict=True) if not end][:size]
            group.running = running
            taken.update(beam.tokens[-1] for beam in running)
            if not running:
                group.searching = False
            elif len(group.finished) == size:
                longest = early_stopping == "never" and length_penalty > 0
                hoped_for = score(running[0].logprob, max_new_tokens if longest else step)
                lead = hoped_for - group.finished[-1].score
                clear &= early_stopping is True or abs(lead) > margin
                group.searching = early_stopping is not True and lead > 0
    beams = [beam for group in every_group for beam in group.finished]
    beams.sort(key=lambda beam: -beam.score)
    # Beams of two groups can tie by making the same text at no cost.
    clear &= groups == 1 or _is_clear([beam.score for beam in beams], margin)
    return Beams(beams, clear)


def _is_clear(descending: list[float], margin: float) -> bool:
    return all(better - worse > margin for better, worse in pairwise(descending))
