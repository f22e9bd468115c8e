"""The decoder: one definition for Llama, Mistral, Qwen2 and Qwen3 shapes, over the paged cache."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache import Appended, KVPool
from dendrite_jax.kernels.append_kv import append_kv
from dendrite_jax.kernels.paged_prefill import paged_prefill
from dendrite_jax.kernels.tree_attention import tree_attention
from dendrite_jax.models.config import ModelConfig
from dendrite_jax.models.rope import apply_rope, rope_tables

Params = dict[str, Any]
"""Weights by name; matrices are [out, in] as in Hugging Face files.

embed [vocab, hidden], final_norm [hidden], lm_head [vocab, hidden] (absent when tied), and layers,
a tuple of dicts: input_norm [hidden], qkv [(heads + 2 kv_heads) head_dim, hidden] with an optional
qkv_bias, optional q_norm and k_norm [head_dim], o [hidden, heads head_dim] with an optional o_bias,
post_norm [hidden], gate_up [2 intermediate, hidden] and down [hidden, intermediate] with optional
gate_up_bias and down_bias.
"""


class Decoder(struct.PyTreeNode):
    """A model as a pytree: weights, and the static configuration beside them."""

    params: Params
    config: ModelConfig = struct.field(pytree_node=False)

    @property
    def dtype(self) -> jnp.dtype:
        return self.params["embed"].dtype

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def kv_shape(self) -> dict[str, int]:
        """The cache dimensions that this model needs."""
        config = self.config
        return {
            "num_layers": config.num_layers,
            "num_kv_heads": config.num_kv_heads,
            "head_dim": config.head_dim,
        }

    def forward(self, pool: KVPool, appended: Appended, tokens: Array) -> tuple[KVPool, Array]:
        """Runs new tokens through all layers.

        Args:
          pool: the block pool; carried or donated, updated in place.
          appended: where the tokens go, from `cache.append`.
          tokens: i32[lanes, tokens].

        Returns:
          The pool with the new keys and values, and the hidden states after the final norm,
          [lanes, tokens, hidden], in the weights' dtype.
        """
        config = self.config
        position = appended.start[:, None] + jnp.arange(tokens.shape[1])
        rope = rope_tables(config, position)
        x = self.params["embed"][tokens]
        k_pool, v_pool = pool.k, pool.v
        for index, layer in enumerate(self.params["layers"]):
            h = rms_norm(x, layer["input_norm"], config.rms_norm_eps)
            q, k, v = _project_qkv(config, layer, h, rope)
            k_pool, v_pool = append_kv(k_pool, v_pool, index, k, v, appended.block, appended.offset)
            attended = _attend(config, index, q, k_pool, v_pool, appended)
            x = x + linear(attended, layer["o"], layer.get("o_bias"))
            h = rms_norm(x, layer["post_norm"], config.rms_norm_eps)
            x = x + _mlp(layer, h)
        x = rms_norm(x, self.params["final_norm"], config.rms_norm_eps)
        return pool.replace(k=k_pool, v=v_pool), x

    def unembed(self, hidden: Array) -> Array:
        """Logits f32[..., vocab] of hidden states [..., hidden]."""
        weight = self.params.get("lm_head", self.params["embed"])
        return jnp.einsum("...i,oi->...o", hidden, weight, preferred_element_type=jnp.float32)


def rms_norm(x: Array, weight: Array, eps: float) -> Array:
    """Root-mean-square norm over the last axis, computed in float32 (Zhang & Sennrich 2019)."""
    wide = x.astype(jnp.float32)
    scaled = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)
    return scaled.astype(x.dtype) * weight


def linear(x: Array, weight: Array, bias: Array | None = None) -> Array:
    """`x [..., in]` times `weight [out, in]`, plus `bias [out]`."""
    y = jnp.einsum("...i,oi->...o", x, weight)
    return y if bias is None else y + bias


def _project_qkv(
    config: ModelConfig, layer: Params, h: Array, rope: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    """Queries, keys (both rotated) and values, [lanes, tokens, heads, head_dim]."""
    qkv = linear(h, layer["qkv"], layer.get("qkv_bias"))
    heads, kv_heads = config.num_heads, config.num_kv_heads
    qkv = qkv.reshape(*h.shape[:2], heads + 2 * kv_heads, config.head_dim)
    q, k, v = jnp.split(qkv, [heads, heads + kv_heads], axis=2)
    if config.qk_norm:
        q = rms_norm(q, layer["q_norm"], config.rms_norm_eps)
        k = rms_norm(k, layer["k_norm"], config.rms_norm_eps)
    return apply_rope(q, *rope), apply_rope(k, *rope), v


def _attend(
    config: ModelConfig, index: int, q: Array, k_pool: Array, v_pool: Array, appended: Appended
) -> Array:
    """Attention of the new tokens over everything their branches hold, [lanes, tokens, H·D]."""
    window = config.windows[index] if config.windows else None
    if q.shape[1] == 1:
        out, _ = tree_attention(
            q[:, 0], k_pool, v_pool, index, appended.table, appended.length, window=window
        )
    else:
        out, _ = paged_prefill(
            q, k_pool, v_pool, index, appended.table, appended.start, window=window
        )
    return out.reshape(*q.shape[:2], config.num_heads * config.head_dim)


def _mlp(layer: Params, h: Array) -> Array:
    gate, up = jnp.split(linear(h, layer["gate_up"], layer.get("gate_up_bias")), 2, axis=-1)
    return linear(jax.nn.silu(gate) * up, layer["down"], layer.get("down_bias"))
