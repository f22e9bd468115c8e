"""Log-probabilities of token paths by plain XLA, which runs prompt and path as one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine.sampling import token_logprob
from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.models import Decoder

LANES, LENGTH = 64, 96
"""Texts that are run together, and the most tokens of one; every path is padded to these."""


class Path(NamedTuple):
    """Tokens that a program found after a prompt."""

    prompt: np.ndarray  # i32[n]
    tokens: np.ndarray  # i32[m], m > 0
    logprob: float  # what the program says of all m together


def worst_difference(model: Decoder, paths: Sequence[Path]) -> float:
    """The largest difference of a path's mean log-probability a token; 0 without paths."""
    twin = replace(model, policy=KernelPolicy(implementation="xla"))
    worst = 0.0
    for first in range(0, len(paths), LANES):
        some = paths[first : first + LANES]
        text = np.zeros((LANES, LENGTH), np.int32)
        for lane, path in enumerate(some):
            both = np.concatenate([path.prompt, path.tokens])
            text[lane, : both.size] = both
        logprob = np.asarray(_logprobs()(twin, text), np.float64)
        for lane, path in enumerate(some):
            begin, end = path.prompt.size, path.prompt.size + path.tokens.size
            difference = abs(logprob[lane, begin:end].sum() - path.logprob) / path.tokens.size
            worst = max(worst, float(difference) if np.isfinite(difference) else np.inf)
    return worst


@cache
def _logprobs() -> Any:
    return jax.jit(_text_logprobs)


def _text_logprobs(model: Decoder, text: Array) -> Array:
    """f32[lanes, length]: of each token after those before it; 0 for the first."""
    lanes, length = text.shape
    config = CacheConfig(lanes * -(-length // CacheConfig.block_size), lanes, length)
    state = engine.init(model, config)
    state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), lanes))
    _, logits, _ = engine.score_tokens(model, state, ids, text, jnp.full(lanes, length))
    return jnp.pad(token_logprob(logits[:, :-1], text[:, 1:]), ((0, 0), (1, 0)))
