"""Where each parameter of a decoder comes from in a Hugging Face checkpoint.

The decoder fuses matrices that read the same input: q, k and v, and gate and up, are concatenated
along axis 0 (the output axis, as Hugging Face stores matrices [out, in]). This table is the one
place that knows the names; loading and exporting both follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from dendrite_jax.kernels.linear import Dense
from dendrite_jax.models.config import ModelConfig
from dendrite_jax.models.decoder import Params


@dataclass(frozen=True)
class Tensor:
    """One tensor of the checkpoint."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Param:
    """One parameter of the decoder: `parts` concatenated along axis 0."""

    key: str
    layer: int | None
    """Index in `layers`; None for a parameter outside the layers."""
    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        return (sum(part.shape[0] for part in self.parts), *first[1:])

    @property
    def is_weight(self) -> bool:
        """Whether a linear layer multiplies with it."""
        return len(self.shape) == 2 and self.key != "embed"

    @property
    def path(self) -> str:
        """The name of the parameter in errors and for placement, such as `layers.3.qkv`."""
        return self.key if self.layer is None else f"layers.{self.layer}.{self.key}"


def param_layout(config: ModelConfig) -> Iterator[Param]:
    """Every parameter of the decoder, in the order in which checkpoints store them."""
    matrix = (config.vocab_size, config.hidden_size)
    yield Param("embed", None, (Tensor("model.embed_tokens.weight", matrix),))
    for layer in range(config.num_layers):
        yield from _layer_layout(config, layer)
    yield Param("final_norm", None, (Tensor("model.norm.weight", (config.hidden_size,)),))
    if not config.tie_word_embeddings:
        yield Param("lm_head", None, (Tensor("lm_head.weight", matrix),))


def _layer_layout(config: ModelConfig, layer: int) -> Iterator[Param]:
    d, f = config.hidden_size, config.intermediate_size
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"

    def param(key: str, *parts: tuple[str, tuple[int, ...]]) -> Param:
        return Param(key, layer, tuple(Tensor(name, shape) for name, shape in parts))

    yield param("input_norm", (f"model.layers.{layer}.input_layernorm.weight", (d,)))
    projections = (("q_proj", q), ("k_proj", kv), ("v_proj", kv))
    yield param("qkv", *((f"{attention}.{name}.weight", (n, d)) for name, n in projections))
    if config.qkv_bias:
        yield param("qkv_bias", *((f"{attention}.{name}.bias", (n,)) for name, n in projections))
    if config.qk_norm:
        yield param("q_norm", (f"{attention}.q_norm.weight", (config.head_dim,)))
        yield param("k_norm", (f"{attention}.k_norm.weight", (config.head_dim,)))
    yield param("o", (f"{attention}.o_proj.weight", (d, q)))
    if config.output_bias:
        yield param("o_bias", (f"{attention}.o_proj.bias", (d,)))
    yield param("post_norm", (f"model.layers.{layer}.post_attention_layernorm.weight", (d,)))
    yield param("gate_up", *((f"{mlp}.{name}.weight", (f, d)) for name in ("gate_proj", "up_proj")))
    if config.mlp_bias:
        biases = ((f"{mlp}.{name}.bias", (f,)) for name in ("gate_proj", "up_proj"))
        yield param("gate_up_bias", *biases)
    yield param("down", (f"{mlp}.down_proj.weight", (d, f)))
    if config.mlp_bias:
        yield param("down_bias", (f"{mlp}.down_proj.bias", (d,)))


def build_params(config: ModelConfig, make: Callable[[Param], Any]) -> Params:
    """The parameter pytree with `make(param)` in the place of each parameter."""
    params: Params = {"layers": tuple({} for _ in range(config.num_layers))}
    for param in param_layout(config):
        target = params if param.layer is None else params["layers"][param.layer]
        array = make(param)
        target[param.key] = Dense(array) if param.is_weight else array
    return params
