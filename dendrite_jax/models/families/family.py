"""What a family of models is: a few facts, and two functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from dendrite_jax.checkpoints.weights import Param
from dendrite_jax.models.config import AttentionSpec, LayerSpec, MlpSpec, ModelConfig
from dendrite_jax.models.families.hf_config import Fields


@dataclass(frozen=True)
class Family:
    """How the checkpoints of an architecture are read."""

    architecture: str
    """As `architectures` of `config.json` names it."""
    model_type: str
    layers: Callable[[Fields], tuple[LayerSpec, ...]]
    """`config.json` to the specs of the layers."""
    layout: Callable[[ModelConfig], Iterator[Param]]
    """Names of tensors to parameters."""


def windowed_layers(
    fields: Fields,
    windows: tuple[int | None, ...],
    *,
    attention: Callable[[int | None], AttentionSpec],
    mlp_bias: bool = False,
) -> tuple[LayerSpec, ...]:
    """Layers that differ in their windows alone; equal ones are one object.

    Args:
      fields: of `config.json`.
      windows: of each layer; None = full attention.
      attention: the attention of a layer of a window.
      mlp_bias: whether the products of the multi-layer perceptrons have biases.
    """
    mlp = MlpSpec(fields.positive_int("intermediate_size"), mlp_bias)
    eps = fields.positive_float("rms_norm_eps")
    specs = {window: LayerSpec(attention(window), mlp, eps) for window in dict.fromkeys(windows)}
    return tuple(specs[window] for window in windows)
