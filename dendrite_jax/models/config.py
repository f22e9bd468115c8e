"""The decoder configuration that every supported family maps to: a tuple of layers' specs."""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp


@dataclass(frozen=True)
class RopeScaling:
    """The `llama3` frequency rescaling of Llama 3.1 and later."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True)
class Rope:
    """The rotary position embedding of a layer (Su et al. 2021)."""

    theta: float = 10000.0
    scaling: RopeScaling | None = None


@dataclass(frozen=True)
class AttentionSpec:
    """Softmax attention of grouped heads (Ainslie et al. 2023)."""

    heads: int
    kv_heads: int
    head_dim: int
    rope: Rope = Rope()
    window: int | None = None
    """Tokens that a query sees, its own included; None = all before it."""
    qk_norm: bool = False
    """An RMS norm of each query and key head before the rotation, with the layer's eps."""
    qkv_bias: bool = False
    output_bias: bool = False


@dataclass(frozen=True)
class MlpSpec:
    """A gated linear unit with SiLU (Shazeer 2020)."""

    width: int
    bias: bool = False


@dataclass(frozen=True)
class LayerSpec:
    """What is static of a layer: `x + attention(norm(x))`, then `x + mlp(norm(x))`.

    Layers of equal specs share their traces, rope tables and plans.
    """

    attention: AttentionSpec
    mlp: MlpSpec
    norm_eps: float = 1e-5
    """Added to the mean square inside the RMS norms."""


@dataclass(frozen=True)
class ModelConfig:
    """Static shape and options of a decoder; hashable, so it can key a jit cache."""

    architecture: str
    """As `config.json` names it, such as "LlamaForCausalLM"."""
    vocab_size: int
    hidden_size: int
    layers: tuple[LayerSpec, ...]
    max_position: int
    """Tokens of context that the model was made for."""
    norm_eps: float = 1e-5
    """Of the final norm."""
    tie_word_embeddings: bool = False
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    compute_dtype: str = "float32"
    """Of activations, keys and values, whatever the weights' dtypes."""

    def __post_init__(self) -> None:
        if not self.layers:
            raise ValueError("ModelConfig.layers is empty; a decoder has at least one layer")
        if not jnp.issubdtype(self.compute_dtype, jnp.floating):
            raise ValueError(f"compute_dtype = {self.compute_dtype!r}: expected a floating dtype")

    @property
    def num_layers(self) -> int:
        return len(self.layers)
