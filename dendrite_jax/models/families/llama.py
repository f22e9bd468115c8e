"""Llama 2 and 3, and what is shaped like them (TinyLlama, the game-of-24 model)."""

from __future__ import annotations

from functools import partial

from dendrite_jax.models.config import AttentionSpec, LayerSpec
from dendrite_jax.models.families.family import Family, windowed_layers
from dendrite_jax.models.families.hf_config import Fields
from dendrite_jax.models.families.layout import llama_layout


def _layers(fields: Fields) -> tuple[LayerSpec, ...]:
    heads = fields.positive_int("num_attention_heads")
    # Llama is older than the field.
    grouped = fields.get("num_key_value_heads") is not None
    bias = fields.flag("attention_bias")
    attention = partial(
        AttentionSpec,
        heads,
        fields.kv_heads(heads) if grouped else heads,
        fields.head_dim(),
        fields.rope(),
        qkv_bias=bias,
        output_bias=bias,
    )
    windows = (None,) * fields.positive_int("num_hidden_layers")
    return windowed_layers(fields, windows, attention=attention, mlp_bias=fields.flag("mlp_bias"))


FAMILY = Family("LlamaForCausalLM", "llama", _layers, llama_layout)
