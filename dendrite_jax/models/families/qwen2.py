"""Qwen2 and Qwen2.5: biases of q, k and v, and sliding windows in the layers that are chosen."""

from __future__ import annotations

from functools import partial

from dendrite_jax.models.config import AttentionSpec, LayerSpec
from dendrite_jax.models.families.family import Family, windowed_layers
from dendrite_jax.models.families.hf_config import Fields, ModelConfigError
from dendrite_jax.models.families.layout import llama_layout

_DEFAULT_MAX_WINDOW_LAYERS = 28


def _layers(fields: Fields) -> tuple[LayerSpec, ...]:
    heads = fields.positive_int("num_attention_heads")
    attention = partial(
        AttentionSpec,
        heads,
        fields.kv_heads(heads),
        fields.head_dim(),
        fields.rope(),
        qkv_bias=True,
    )
    return windowed_layers(fields, chosen_windows(fields), attention=attention)


def chosen_windows(fields: Fields) -> tuple[int | None, ...]:
    """`use_sliding_window` says whether any layer has a window, `max_window_layers` from where on.

    `layer_types` takes precedence.
    """
    window = fields.window() if fields.flag("use_sliding_window") else None
    first = fields.get("max_window_layers", _DEFAULT_MAX_WINDOW_LAYERS)
    if isinstance(first, bool) or not isinstance(first, int):
        raise ModelConfigError(f"max_window_layers = {first!r}: expected an integer")
    return fields.layer_windows(window, first)


FAMILY = Family("Qwen2ForCausalLM", "qwen2", _layers, llama_layout)
