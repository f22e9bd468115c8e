"""Model shapes that benchmarks run, with random weights."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from dendrite_jax.models import Decoder, ModelConfig

SHAPES = {
    "llama-3-8b": ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_layers=32,
        num_heads=32,
        num_kv_heads=8,
        head_dim=128,
        max_position=8192,
        rope_theta=500000.0,
    ),
    "small": ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=768,
        num_layers=4,
        num_heads=4,
        num_kv_heads=2,
        head_dim=64,
        max_position=8192,
        tie_word_embeddings=True,
    ),
    # All products of its decode are Triton calls, whose loops command buffers can hold whole.
    "two-layers": ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=4096,
        hidden_size=1024,
        intermediate_size=3072,
        num_layers=2,
        num_heads=16,
        num_kv_heads=8,
        head_dim=128,
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
    config = SHAPES[shape]
    heads, kv_heads, dim = config.num_heads, config.num_kv_heads, config.head_dim
    hidden, inner = config.hidden_size, config.intermediate_size
    keys = iter(jax.random.split(jax.random.key(seed), 2 + 4 * config.num_layers))

    def matrix(rows: int, columns: int) -> jax.Array:
        return _random_matrix(next(keys), (rows, columns), dtype)

    def layer() -> dict[str, jax.Array]:
        return {
            "input_norm": jnp.ones(hidden, dtype),
            "qkv": matrix((heads + 2 * kv_heads) * dim, hidden),
            "o": matrix(hidden, heads * dim),
            "post_norm": jnp.ones(hidden, dtype),
            "gate_up": matrix(2 * inner, hidden),
            "down": matrix(hidden, inner),
        }

    params: dict[str, Any] = {
        "embed": matrix(config.vocab_size, hidden),
        "final_norm": jnp.ones(hidden, dtype),
        "layers": tuple(layer() for _ in range(config.num_layers)),
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
    config = model.config
    item = model.dtype.itemsize
    cache = 2 * config.num_layers * config.num_kv_heads * config.head_dim * context * item
    return weights + branches * cache
