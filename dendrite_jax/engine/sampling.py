"""Choosing the next token from logits, with each branch's own randomness."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array


class Sampling(struct.PyTreeNode):
    """How to sample, a pytree of scalars or of per-lane [lanes] arrays.

    A field that is None is off and costs nothing; turning one on or off is a new trace, changing
    its value is not. Processors apply in the order of the fields, as in Hugging Face.
    """

    repetition_penalty: Array | float | None = None  # > 0; 1 leaves the logits (Keskar et al. 2019)
    temperature: Array | float = 1.0  # ≥ 0, finite; 0 takes the most likely token
    top_k: Array | int | None = None  # ≥ 1; keeps the k most likely tokens, and equals of the kth
    top_p: Array | float | None = None  # (0, 1]; the smallest set with this mass (Holtzman 2020)
    min_p: Array | float | None = None  # [0, 1]; tokens with p ≥ min_p · max p (Nguyen 2024)


class Sampled(NamedTuple):
    """One chosen token a lane."""

    token: Array  # i32[lanes]
    raw_logprob: Array  # f32[lanes], under the model's own distribution
    logprob: Array  # f32[lanes], under the processed distribution that was sampled from


PLAIN = Sampling()
"""The model's own distribution."""
GREEDY = Sampling(temperature=0.0)
"""The likeliest token."""


def sample(
    logits: Array,
    key: Array,
    position: Array,
    sampling: Sampling,
    seen: Array | None = None,
    masked: Array | None = None,
) -> Sampled:
    """Samples one token a lane.

    Args:
      logits: f32[lanes, vocab].
      key: u32[lanes, 2], each branch's key.
      position: i32[lanes], where the token will stand; the draw depends on (key, position) only,
        so not on the other lanes.
      sampling: the processors.
      seen: bool[lanes, vocab], tokens that the branch holds; needed by repetition_penalty.
      masked: f32[lanes, vocab], the logits under a grammar (`mask_logits`), which are processed in
        place of `logits`; the raw log-probability stays that of `logits`.
    """
    processed = process_logits(logits if masked is None else masked, sampling, seen)

    def draw(key: Array, position: Array, row: Array) -> Array:
        noise_key = jax.random.fold_in(jax.random.wrap_key_data(key), position)
        return row + jax.random.gumbel(noise_key, row.shape, row.dtype)

    noisy = jax.vmap(draw)(key, position, processed)
    greedy = _per_lane(sampling.temperature) == 0
    token = jnp.argmax(jnp.where(greedy, processed, noisy), axis=-1).astype(jnp.int32)
    return Sampled(token, token_logprob(logits, token), token_logprob(processed, token))


def process_logits(logits: Array, sampling: Sampling, seen: Array | None = None) -> Array:
    """The logits f32[lanes, vocab] that sampling draws from; −inf for an excluded token."""
    if sampling.repetition_penalty is not None:
        if seen is None:
            raise ValueError("sampling.repetition_penalty needs `seen`, the tokens held so far")
        penalty = _per_lane(sampling.repetition_penalty)
        penalised = jnp.where(logits > 0, logits / penalty, logits * penalty)
        logits = jnp.where(seen, penalised, logits)
    logits = logits / _divisor(logits, _per_lane(sampling.temperature))
    if sampling.top_k is not None or sampling.top_p is not None:
        logits = _keep_top(logits, sampling)
    if sampling.min_p is not None:
        floor = jnp.max(logits, axis=-1, keepdims=True) + jnp.log(_per_lane(sampling.min_p))
        logits = jnp.where(logits >= floor, logits, -jnp.inf)
    return logits


def token_logprob(logits: Array, token: Array) -> Array:
    """Log-probability f32[...] of tokens i32[...] under logits f32[..., vocab]."""
    chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def _divisor(logits: Array, temperature: Array) -> Array:
    """The temperature, f32[..., 1]; where a quotient would overflow, the least that serves.

    Quotients are then as far apart as float32 allows, and the likeliest token has all the mass.
    """
    finite = jnp.where(jnp.isfinite(logits), jnp.abs(logits), 0.0)
    least = jnp.max(finite, axis=-1, keepdims=True) * 2.0**-126 + jnp.finfo(jnp.float32).tiny
    return jnp.where(temperature > 0, jnp.maximum(temperature, least), 1.0)


def _keep_top(logits: Array, sampling: Sampling) -> Array:
    """Applies top_k, then top_p to what is left, on one sort."""
    order = jnp.argsort(-logits, axis=-1, stable=True)
    ranked = jnp.take_along_axis(logits, order, axis=-1)
    rank = jnp.arange(logits.shape[-1])
    if sampling.top_k is not None:
        last = jnp.clip(_per_lane(sampling.top_k), 1, logits.shape[-1]) - 1
        last = jnp.broadcast_to(last, (*logits.shape[:-1], 1))
        least = jnp.take_along_axis(ranked, last, axis=-1)
        ranked = jnp.where(ranked >= least, ranked, -jnp.inf)
    if sampling.top_p is not None:
        probability = jax.nn.softmax(ranked, axis=-1)
        before = jnp.cumsum(probability, axis=-1) - probability
        top_p = _per_lane(sampling.top_p)
        # Rounding can bring the sum to 1 before the last tokens, which a top_p of 1 keeps too.
        inside = (before < top_p) | (top_p >= 1) | (rank == 0)
        ranked = jnp.where(inside, ranked, -jnp.inf)
    lane = jnp.arange(logits.shape[0])[:, None]
    return jnp.zeros_like(logits).at[lane, order].set(ranked)


def _per_lane(value: Array | float | int) -> Array:
    """A scalar or [lanes] value, shaped to broadcast over [lanes, vocab]."""
    value = jnp.asarray(value)
    return value[..., None] if value.ndim else value
