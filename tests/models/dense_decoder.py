"""A dense decoder in numpy, written from the published equations as an independent oracle.

No cache, no fused kernels, no jax: every call recomputes the whole sequence, in float64 unless
asked otherwise. It takes the parameters of the engine, so it checks the decoder, not the loader.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dendrite_jax.models.config import AttentionSpec, LayerSpec, ModelConfig


def dense_logits(
    config: ModelConfig, params: dict[str, Any], tokens: np.ndarray, dtype: type = np.float64
) -> np.ndarray:
    """Logits [batch, length, vocab] of every position of `tokens` [batch, length]."""
    x = _as(params["embed"], dtype)[tokens]
    for spec, layer in zip(config.layers, params["layers"], strict=True):
        weights = {name: _as(value, dtype) for name, value in layer.items()}
        h = _norm(x, weights["input_norm"], spec.norm_eps)
        x = x + _attention(spec, weights, h)
        h = _norm(x, weights["post_norm"], spec.norm_eps)
        h = h @ weights["gate_up"].T + weights.get("gate_up_bias", 0)
        gate, up = np.split(h, 2, axis=-1)
        h = gate / (1 + np.exp(-gate)) * up
        x = x + h @ weights["down"].T + weights.get("down_bias", 0)
    x = _norm(x, _as(params["final_norm"], dtype), config.norm_eps)
    return x @ _as(params.get("lm_head", params["embed"]), dtype).T


def _attention(spec: LayerSpec, weights: dict[str, np.ndarray], h: np.ndarray) -> np.ndarray:
    batch, length, _ = h.shape
    options, window = spec.attention, spec.attention.window
    heads, kv_heads, head_dim = options.heads, options.kv_heads, options.head_dim
    cos, sin = _rope(options, length, h.dtype.type)
    qkv = (h @ weights["qkv"].T + weights.get("qkv_bias", 0)).reshape(batch, length, -1, head_dim)
    q, k, v = np.split(qkv, [heads, heads + kv_heads], axis=2)
    if options.qk_norm:
        q = _norm(q, weights["q_norm"], spec.norm_eps)
        k = _norm(k, weights["k_norm"], spec.norm_eps)
    q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
    k, v = (np.repeat(x, heads // kv_heads, axis=2) for x in (k, v))

    scores = np.einsum("bqhd,bkhd->bhqk", q, k) / math.sqrt(head_dim)
    distance = np.arange(length)[:, None] - np.arange(length)
    visible = distance >= 0
    if window is not None:
        visible &= distance < window
    scores = np.where(visible, scores, -np.inf)
    scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
    attended = np.einsum("bhqk,bkhd->bqhd", scores / scores.sum(axis=-1, keepdims=True), v)
    return attended.reshape(batch, length, -1) @ weights["o"].T + weights.get("o_bias", 0)


def _rope(options: AttentionSpec, length: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines [length, 1, head_dim / 2]."""
    frequencies = []
    for pair in range(options.head_dim // 2):
        frequency = options.rope.theta ** (-2 * pair / options.head_dim)
        scaling = options.rope.scaling
        if scaling is not None:
            turns = scaling.original_max_position * frequency / (2 * math.pi)
            slow = frequency / scaling.factor
            if turns < scaling.low_freq_factor:
                frequency = slow
            elif turns <= scaling.high_freq_factor:
                span = scaling.high_freq_factor - scaling.low_freq_factor
                share = (turns - scaling.low_freq_factor) / span
                frequency = share * frequency + (1 - share) * slow
        frequencies.append(frequency)
    angle = np.arange(length)[:, None, None] * np.array(frequencies)
    return np.cos(angle).astype(dtype), np.sin(angle).astype(dtype)


def _rotate(x: np.ndarray, cos: np.ndarray, sin: np.ndarray) -> np.ndarray:
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def _as(value: Any, dtype: type) -> np.ndarray:
    """An array, or the array of a dense weight."""
    return np.asarray(getattr(value, "values", value)).astype(dtype)
