"""Logit processing in plain Python and float64, one lane at a time."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaincc

from dendrite_jax.engine import Sampling


@dataclass(frozen=True)
class Knobs:
    """The sampling options of one lane; the defaults change nothing."""

    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_k: int = 1000
    top_p: float = 1.0
    min_p: float = 0.0


@dataclass(frozen=True)
class Processed:
    """What is left of one lane's logits."""

    logits: np.ndarray  # f64[vocab], −inf for an excluded token
    margin: float
    """How far, in probability, the closest decision of top-p or min-p was from going the other
    way: below float32's precision either answer is right."""


def process(logits: np.ndarray, knobs: Knobs, seen: Set[int]) -> Processed:
    """Applies repetition penalty, temperature, top-k, top-p and min-p, in this order."""
    values = logits.astype(np.float64)
    for token in seen:
        values[token] *= knobs.repetition_penalty ** (-1 if values[token] > 0 else 1)
    if knobs.temperature > 0:
        values = values / knobs.temperature
    ranking = np.argsort(-values, kind="stable").tolist()
    least = values[ranking[min(knobs.top_k, len(ranking)) - 1]]
    kept = [token for token in ranking if values[token] >= least]  # equals of the kth are kept too
    margin = np.inf

    probability = _softmax(values, kept)
    mass = 0.0
    nucleus: list[int] = []
    for token in kept:
        if nucleus and knobs.top_p < 1:
            margin = min(margin, abs(mass - knobs.top_p))
            if mass >= knobs.top_p:
                break
        nucleus.append(token)
        mass += probability[token]

    probability = _softmax(values, nucleus)
    floor = knobs.min_p * probability[nucleus[0]]
    if knobs.min_p > 0:
        margin = min(margin, *(abs(probability[t] - floor) for t in nucleus[1:]), np.inf)
    kept = [token for token in nucleus if probability[token] >= floor]
    result = np.full(values.shape, -np.inf)
    result[kept] = values[kept]
    return Processed(result, margin)


def as_sampling(lanes: Sequence[Knobs]) -> Sampling:
    """The same options for the engine: every processor on, an array of a value per lane."""
    return Sampling(
        repetition_penalty=jnp.array([knobs.repetition_penalty for knobs in lanes]),
        temperature=jnp.array([knobs.temperature for knobs in lanes]),
        top_k=jnp.array([knobs.top_k for knobs in lanes]),
        top_p=jnp.array([knobs.top_p for knobs in lanes]),
        min_p=jnp.array([knobs.min_p for knobs in lanes]),
    )


def chi_square_p(counts: np.ndarray, expected: np.ndarray, freedom: int) -> float:
    """How likely counts at least this far from the expected ones are (Pearson's test)."""
    statistic = np.sum((counts - expected) ** 2 / expected)
    return float(gammaincc(freedom / 2, statistic / 2))


def log_softmax(values: np.ndarray) -> np.ndarray:
    """Over the last axis, f64."""
    values = values.astype(np.float64)
    shifted = values - values.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _softmax(values: np.ndarray, kept: list[int]) -> dict[int, float]:
    weights = {token: np.exp(values[token] - values[kept[0]]) for token in kept}
    total = sum(weights.values())
    return {token: weight / total for token, weight in weights.items()}
