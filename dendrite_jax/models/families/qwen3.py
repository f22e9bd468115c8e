"""Qwen3: norms of query and key heads, heads of their own width, Qwen2's windows."""

from __future__ import annotations

from functools import partial

from dendrite_jax.models.config import AttentionSpec, LayerSpec
from dendrite_jax.models.families.family import Family, windowed_layers
from dendrite_jax.models.families.hf_config import Fields
from dendrite_jax.models.families.layout import llama_layout
from dendrite_jax.models.families.qwen2 import chosen_windows

_DEFAULT_HEAD_DIM = 128


def _layers(fields: Fields) -> tuple[LayerSpec, ...]:
    heads = fields.positive_int("num_attention_heads")
    bias = fields.flag("attention_bias")
    attention = partial(
        AttentionSpec,
        heads,
        fields.kv_heads(heads),
        fields.head_dim(_DEFAULT_HEAD_DIM),
        fields.rope(),
        qk_norm=True,
        qkv_bias=bias,
        output_bias=bias,
    )
    return windowed_layers(fields, chosen_windows(fields), attention=attention)


FAMILY = Family("Qwen3ForCausalLM", "qwen3", _layers, llama_layout)
