"""The tensors of a Llama-shaped checkpoint, and the parameters of the decoder that they make.

The decoder fuses matrices that read the same input: q, k and v, and gate and up, are concatenated
along axis 0 (the output axis, as Hugging Face stores matrices [out, in]). This table is the one
place that knows the names; loading and exporting both follow it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import jax

from dendrite_jax.checkpoints.weights import Param, Tensor
from dendrite_jax.kernels.linear import Dense
from dendrite_jax.models.config import LayerSpec, ModelConfig
from dendrite_jax.models.decoder import Params

EMBEDDING = "model.embed_tokens.weight"
OUTPUT = "lm_head.weight"
LAYERS = "model.layers."
"""How the names of all tensors of layers begin; the layer's number follows."""

_WEIGHTS = ("qkv", "o", "gate_up", "down", "lm_head")
"""Parameters that a linear layer multiplies with; the others stay arrays."""


def llama_layout(config: ModelConfig) -> Iterator[Param]:
    """Every parameter of the decoder, in the order in which checkpoints store them."""
    matrix = (config.vocab_size, config.hidden_size)
    yield Param("embed", None, (Tensor(EMBEDDING, matrix),))
    for layer, spec in enumerate(config.layers):
        yield from _layer_layout(spec, config.hidden_size, layer)
    yield Param("final_norm", None, (Tensor("model.norm.weight", (config.hidden_size,)),))
    if not config.tie_word_embeddings:
        yield Param("lm_head", None, (Tensor(OUTPUT, matrix),))


def _layer_layout(spec: LayerSpec, hidden: int, layer: int) -> Iterator[Param]:
    heads, width = spec.attention, spec.mlp.width
    q, kv = heads.heads * heads.head_dim, heads.kv_heads * heads.head_dim
    attention, mlp = f"{LAYERS}{layer}.self_attn", f"{LAYERS}{layer}.mlp"

    def param(key: str, *parts: tuple[str, tuple[int, ...]]) -> Param:
        return Param(key, layer, tuple(Tensor(name, shape) for name, shape in parts))

    yield param("input_norm", (f"{LAYERS}{layer}.input_layernorm.weight", (hidden,)))
    qkv = [(f"{attention}.{name}_proj", n) for name, n in zip("qkv", (q, kv, kv), strict=True)]
    yield param("qkv", *((f"{name}.weight", (n, hidden)) for name, n in qkv))
    if heads.qkv_bias:
        yield param("qkv_bias", *((f"{name}.bias", (n,)) for name, n in qkv))
    if heads.qk_norm:
        yield param("q_norm", (f"{attention}.q_norm.weight", (heads.head_dim,)))
        yield param("k_norm", (f"{attention}.k_norm.weight", (heads.head_dim,)))
    yield param("o", (f"{attention}.o_proj.weight", (hidden, q)))
    if heads.output_bias:
        yield param("o_bias", (f"{attention}.o_proj.bias", (hidden,)))
    yield param("post_norm", (f"{LAYERS}{layer}.post_attention_layernorm.weight", (hidden,)))
    gate_up = [f"{mlp}.{name}_proj" for name in ("gate", "up")]
    yield param("gate_up", *((f"{name}.weight", (width, hidden)) for name in gate_up))
    if spec.mlp.bias:
        yield param("gate_up_bias", *((f"{name}.bias", (width,)) for name in gate_up))
    yield param("down", (f"{mlp}.down_proj.weight", (hidden, width)))
    if spec.mlp.bias:
        yield param("down_bias", (f"{mlp}.down_proj.bias", (hidden,)))


def build_params(config: ModelConfig, arrays: Iterable[tuple[Param, Any]]) -> Params:
    """The parameter pytree of arrays and their places; linear layers' become `Dense`."""
    params: Params = {"layers": tuple({} for _ in config.layers)}
    for param, array in arrays:
        target = params if param.layer is None else params["layers"][param.layer]
        target[param.key] = Dense(array) if param.key in _WEIGHTS else array
    return params


def split_params(layout: Iterable[Param], params: Params) -> dict[str, jax.Array]:
    """The tensors of a checkpoint by name: the way back from `build_params`."""
    tensors: dict[str, jax.Array] = {}
    for param in layout:
        value = (params if param.layer is None else params["layers"][param.layer])[param.key]
        array = value.values if isinstance(value, Dense) else value
        start = 0
        for part in param.parts:
            tensors[part.name] = array[start : start + part.shape[0]]
            start += part.shape[0]
    return tensors
