"""The decoder configuration that every supported architecture maps to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RopeScaling:
    """The `llama3` frequency rescaling of Llama 3.1 and later."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True)
class ModelConfig:
    """Static shape and options of a decoder; hashable, so it can key a jit cache."""

    architecture: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    rms_norm_eps: float = 1e-5
    rope_theta: float = 10000.0
    rope_scaling: RopeScaling | None = None
    tie_word_embeddings: bool = False
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    windows: tuple[int | None, ...] = ()
    """Sliding window of each layer, in tokens (None = full attention); empty = all full.

    A window of W lets a query attend to its own position and the W - 1 before it.
    """
    bos_id: int | None = None
    eos_ids: tuple[int, ...] = ()
    checkpoint_dtype: str | None = None
    """Dtype that the checkpoint says its weights have, such as "bfloat16"; None = not said."""
