"""Model shapes that benchmarks run, with random weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dendrite_jax import cache as kv
from dendrite_jax.kernels.linear import Dense
from dendrite_jax.models import (
    AttentionSpec,
    Decoder,
    LayerSpec,
    MlpSpec,
    ModelConfig,
    Rope,
)

SHAPES = {
    "llama-3-8b": ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=128256,
        hidden_size=4096,
        layers=32 * (LayerSpec(AttentionSpec(32, 8, 128, Rope(500000.0)), MlpSpec(14336)),),
        max_position=8192,
    ),
    "small": ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=4096,
        hidden_size=256,
        layers=4 * (LayerSpec(AttentionSpec(4, 2, 64), MlpSpec(768)),),
        max_position=8192,
        tie_word_embeddings=True,
    ),
    # All products of its decode are Triton calls, whose loops command buffers can hold whole.
    "two-layers": ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=4096,
        hidden_size=1024,
        layers=2 * (LayerSpec(AttentionSpec(16, 8, 128), MlpSpec(3072)),),
        max_position=8192,
        tie_word_embeddings=True,
    ),
}


def default_shape() -> str:
    """The 8B shape on a GPU, the small one elsewhere."""
    return "llama-3-8b" if jax.default_backend() == "gpu" else "small"


def default_dtype() -> DTypeLike:
    """bfloat16 on a GPU, float32 elsewhere."""
    return jnp.bfloat16 if jax.default_backend() == "gpu" else jnp.float32


def random_model(shape: str, dtype: DTypeLike, seed: int = 0) -> Decoder:
    """A decoder of a named shape; every weight matrix is scaled to keep activations near 1."""
    config = replace(SHAPES[shape], compute_dtype=jnp.dtype(dtype).name)
    hidden = config.hidden_size
    keys = iter(jax.random.split(jax.random.key(seed), 2 + 4 * config.num_layers))

    def matrix(rows: int, columns: int) -> Dense:
        return Dense(_random_matrix(next(keys), (rows, columns), dtype))

    def layer(spec: LayerSpec) -> dict[str, Any]:
        heads, kv_heads = spec.attention.heads, spec.attention.kv_heads
        dim, inner = spec.attention.head_dim, spec.mlp.width
        return {
            "input_norm": jnp.ones(hidden, dtype),
            "qkv": matrix((heads + 2 * kv_heads) * dim, hidden),
            "o": matrix(hidden, heads * dim),
            "post_norm": jnp.ones(hidden, dtype),
            "gate_up": matrix(2 * inner, hidden),
            "down": matrix(hidden, inner),
        }

    params: dict[str, Any] = {
        "embed": matrix(config.vocab_size, hidden).values,
        "final_norm": jnp.ones(hidden, dtype),
        "layers": tuple(map(layer, config.layers)),
    }
    if not config.tie_word_embeddings:
        params["lm_head"] = matrix(config.vocab_size, hidden)
    return Decoder(params, config)


@partial(jax.jit, static_argnums=(1, 2))
def _random_matrix(key: jax.Array, shape: tuple[int, int], dtype: DTypeLike) -> jax.Array:
    return jax.random.normal(key, shape, dtype) * shape[1] ** -0.5


def step_bytes(model: Decoder, context: int, branches: int = 1) -> int:
    """Bytes that a decode step of unshared branches must read: the weights once, and each cache."""
    weights = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params))
    if "lm_head" in model.params:
        weights -= model.params["embed"].nbytes  # a row a branch is read
    token = kv.block_bytes(model.kv_shape, dtype=model.dtype, block_size=1)
    return weights + branches * context * token
