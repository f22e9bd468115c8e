"""Angles of the rotary position embedding, with the frequency rescaling of Llama 3.1."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax.models.config import Rope, RopeScaling


def rope_table(rope: Rope, head_dim: int, position: Array) -> tuple[Array, Array]:
    """Cosines and sines, f32[..., head_dim / 2], of i32[...] positions."""
    frequency = jnp.asarray(_frequencies(rope, head_dim))
    angle = position[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def _frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    exponent = np.arange(0, head_dim, 2, dtype=np.float64) / head_dim
    frequency = rope.theta**-exponent
    if rope.scaling is not None:
        frequency = _rescale(frequency, rope.scaling)
    return frequency.astype(np.float32)


def _rescale(frequency: np.ndarray, scaling: RopeScaling) -> np.ndarray:
    """Slows low frequencies by `factor` and blends in between (Llama 3.1, `rope_type: llama3`)."""
    wavelength = 2 * math.pi / frequency
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    blend = np.clip((scaling.original_max_position / wavelength - low) / (high - low), 0.0, 1.0)
    return (1 - blend) * frequency / scaling.factor + blend * frequency
