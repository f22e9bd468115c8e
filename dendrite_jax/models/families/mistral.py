"""Mistral: Llama's layers, all with one sliding window or none."""

from __future__ import annotations

from functools import partial

from dendrite_jax.models.config import AttentionSpec, LayerSpec
from dendrite_jax.models.families.family import Family, windowed_layers
from dendrite_jax.models.families.hf_config import Fields, ModelConfigError
from dendrite_jax.models.families.layout import llama_layout


def _layers(fields: Fields) -> tuple[LayerSpec, ...]:
    heads = fields.positive_int("num_attention_heads")
    attention = partial(
        AttentionSpec, heads, fields.kv_heads(heads), fields.head_dim(), fields.rope()
    )
    return windowed_layers(fields, _windows(fields), attention=attention)


def _windows(fields: Fields) -> tuple[int | None, ...]:
    window = fields.window()
    windows = fields.layer_windows(window, first=0)
    if any(of_layer != window for of_layer in windows):
        raise ModelConfigError(
            f"layer_types = {fields.get('layer_types')!r} contradicts sliding_window = {window!r}, "
            "which mistral applies to every layer"
        )
    return windows


FAMILY = Family("MistralForCausalLM", "mistral", _layers, llama_layout)
