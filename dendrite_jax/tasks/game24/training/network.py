"""The training-time forward pass of the embedded model: whole rows at once, no cache.

Parameters have the layout of the engine's decoder (`Dense` matrices [out, in], q/k/v and
gate/up joined along axis 0), so that a trained checkpoint is the same pytree that the engine runs.
"""

from __future__ import annotations

from typing import Any, Literal

import jax
import jax.numpy as jnp

from dendrite_jax.kernels.linear import Dense
from dendrite_jax.models.config import AttentionSpec, LayerSpec, ModelConfig

Params = dict[str, Any]
Attention = Literal["xla", "cudnn"]


def init_params(key: jax.Array, config: ModelConfig) -> Params:
    """Random float32 parameters; matrices that write to the residual stream start smaller."""
    hidden = config.hidden_size
    embed_key, *layer_keys = jax.random.split(key, 1 + config.num_layers)
    depth_scale = (2 * config.num_layers) ** -0.5

    def matrix(key: jax.Array, rows: int, columns: int, scale: float = 1.0) -> Dense:
        return Dense(jax.random.normal(key, (rows, columns)) * columns**-0.5 * scale)

    def layer(key: jax.Array, spec: LayerSpec) -> Params:
        heads, width = spec.attention, spec.mlp.width
        query_rows = heads.heads * heads.head_dim
        qkv_rows = query_rows + 2 * heads.kv_heads * heads.head_dim
        keys = jax.random.split(key, 4)
        return {
            "input_norm": jnp.ones(hidden),
            "qkv": matrix(keys[0], qkv_rows, hidden),
            "o": matrix(keys[1], hidden, query_rows, depth_scale),
            "post_norm": jnp.ones(hidden),
            "gate_up": matrix(keys[2], 2 * width, hidden),
            "down": matrix(keys[3], hidden, width, depth_scale),
        }

    return {
        "embed": 0.02 * jax.random.normal(embed_key, (config.vocab_size, hidden)),
        "final_norm": jnp.ones(hidden),
        "layers": tuple(map(layer, layer_keys, config.layers)),
    }


def forward(
    params: Params, tokens: jax.Array, config: ModelConfig, attention: Attention = "xla"
) -> jax.Array:
    """Causal logits of whole rows, in the dtype of the parameters.

    Args:
      params: as `init_params` makes them, in any float dtype.
      tokens: i32[rows, length].
      config: the shape of the model; embeddings are tied.
      attention: implementation for `jax.nn.dot_product_attention`, "xla" or "cudnn".

    Returns:
      [rows, length, vocab].
    """
    # The gradient of a gather scatters every token into 512 rows, which a GPU does one by one; a
    # product with one-hot rows does not.
    x = jax.nn.one_hot(tokens, config.vocab_size, dtype=params["embed"].dtype) @ params["embed"]
    for layer, spec in zip(params["layers"], config.layers, strict=True):
        normed = _rms_norm(x, layer["input_norm"], spec.norm_eps)
        x = x + _attend(layer, normed, spec.attention, attention)
        normed = _rms_norm(x, layer["post_norm"], spec.norm_eps)
        gate, up = jnp.split(normed @ layer["gate_up"].values.T, 2, axis=-1)
        x = x + (jax.nn.silu(gate) * up) @ layer["down"].values.T
    return _rms_norm(x, params["final_norm"], config.norm_eps) @ params["embed"].T


def _attend(
    layer: Params,
    x: jax.Array,
    spec: AttentionSpec,
    attention: Attention,
) -> jax.Array:
    rows, length, _ = x.shape
    heads, kv_heads = spec.heads, spec.kv_heads
    cos, sin = _rotations(length, spec)
    qkv = (x @ layer["qkv"].values.T).reshape(rows, length, heads + 2 * kv_heads, spec.head_dim)
    query, key, value = jnp.split(qkv, (heads, heads + kv_heads), axis=2)
    query, key = _rotate(query, cos, sin), _rotate(key, cos, sin)
    mixed = jax.nn.dot_product_attention(
        query, key, value, is_causal=True, implementation=attention
    )
    return mixed.reshape(rows, length, -1) @ layer["o"].values.T


def _rms_norm(x: jax.Array, weight: jax.Array, eps: float) -> jax.Array:
    """RMSNorm with float32 statistics, in the dtype of x."""
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return (wide * scale).astype(x.dtype) * weight


def _rotations(length: int, spec: AttentionSpec) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines f32[length, 1, head_dim / 2] of the rotary embedding."""
    exponent = jnp.arange(0, spec.head_dim, 2) / spec.head_dim
    angle = jnp.arange(length)[:, None] * spec.rope.theta**-exponent
    return jnp.cos(angle)[:, None], jnp.sin(angle)[:, None]


def _rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the halves of each head (Hugging Face's order), in the dtype of x."""
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], -1)
    return rotated.astype(x.dtype)
