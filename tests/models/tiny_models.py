"""Tiny random models of every family, made without downloads and bit for bit the same everywhere.

A case is a Hugging Face `config.json`; its weights and prompts come from the raw output of PCG64,
whose stream numpy keeps fixed, by exactly rounded operations only.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from dendrite_jax.models.families import param_layout, read_config

PROMPT_LENGTHS = (1, 15, 16, 17, 31, 32, 33, 80)
NUM_PROMPTS = 50

_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _case(architecture: str, heads: int, kv_heads: int, **fields: Any) -> dict[str, Any]:
    return {
        "architectures": [architecture],
        "model_type": architecture.removesuffix("ForCausalLM").lower(),
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **fields,
    }


def _llama(heads: int, kv_heads: int, **fields: Any) -> dict[str, Any]:
    return _case("LlamaForCausalLM", heads, kv_heads, **fields)


def _mistral(heads: int, kv_heads: int, **fields: Any) -> dict[str, Any]:
    return _case("MistralForCausalLM", heads, kv_heads, **fields)


def _qwen2(heads: int, kv_heads: int, **fields: Any) -> dict[str, Any]:
    return _case("Qwen2ForCausalLM", heads, kv_heads, **fields)


def _qwen3(heads: int, kv_heads: int, **fields: Any) -> dict[str, Any]:
    return _case("Qwen3ForCausalLM", heads, kv_heads, **fields)


# Both layouts of config.json occur: rope_theta / rope_scaling (transformers 4) and
# rope_parameters (transformers 5).
CASES: dict[str, dict[str, Any]] = {
    "llama2_mha": _llama(4, 4, rope_theta=10000.0, rope_scaling=None),
    "llama31_rope": _llama(8, 2, rope_theta=500000.0, rope_scaling=_LLAMA3_ROPE),
    "llama32_rope_tied": _llama(
        8,
        1,
        head_dim=16,
        tie_word_embeddings=True,
        rope_parameters={
            **_LLAMA3_ROPE,
            "rope_theta": 1000.0,
            "factor": 32.0,
            "original_max_position_embeddings": 100,
        },
    ),
    "llama_biases": _llama(4, 1, attention_bias=True, mlp_bias=True),
    "llama_odd_sizes": _llama(
        3,
        3,
        hidden_size=60,
        head_dim=20,
        intermediate_size=70,
        vocab_size=131,
        rms_norm_eps=0.05,
    ),
    "tinyllama": _llama(8, 1, num_hidden_layers=3, torch_dtype="float32", pretraining_tp=1),
    "mistral_window_5": _mistral(8, 2, sliding_window=5, rope_theta=10000.0),
    "mistral_window_16_wide_heads": _mistral(
        4, 1, head_dim=24, sliding_window=16, rope_parameters={"rope_theta": 1e6}
    ),
    "mistral_full": _mistral(4, 4, sliding_window=None, rope_theta=1e6),
    "qwen2_gqa7_tied": _qwen2(7, 1, hidden_size=56, tie_word_embeddings=True, rope_theta=1e6),
    "qwen2_upper_window": _qwen2(
        8, 1, use_sliding_window=True, sliding_window=17, max_window_layers=1
    ),
    "qwen2_layer_types": _qwen2(
        4,
        4,
        use_sliding_window=True,
        sliding_window=9,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "qwen3_gqa8_biases": _qwen3(8, 1, head_dim=10, attention_bias=True),
    "qwen3_gqa4_window_tied": _qwen3(
        8,
        2,
        head_dim=12,
        tie_word_embeddings=True,
        use_sliding_window=True,
        sliding_window=7,
        max_window_layers=0,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    ),
    "qwen3_mha_odd_sizes": _qwen3(
        3, 3, head_dim=20, hidden_size=60, intermediate_size=100, vocab_size=131
    ),
}


def raw_bits(seed: int, stream: str, count: int) -> np.ndarray:
    """u64[count] random bits; `stream` names an independent sequence."""
    entropy = int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:8], "little")
    return np.random.PCG64(entropy).random_raw(count)


def uniform(seed: int, stream: str, shape: tuple[int, ...]) -> np.ndarray:
    """f32 numbers in [−1, 1), multiples of 2⁻²³."""
    bits = raw_bits(seed, stream, int(np.prod(shape))) >> 40
    return (bits.astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)).reshape(shape)


def tiny_weights(fields: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    """The checkpoint of a case by Hugging Face name, f32.

    Scales are those of a trained model's effects rather than of its initialisation: attention is
    peaked, biases and norm weights matter, logits spread over several units.
    """
    tensors = [part for param in param_layout(read_config(fields)) for part in param.parts]
    return {
        tensor.name: _tensor(tensor.name, tensor.shape, fields["tie_word_embeddings"], seed)
        for tensor in tensors
    }


def _tensor(name: str, shape: tuple[int, ...], tied: bool, seed: int) -> np.ndarray:
    noise = uniform(seed, name, shape)
    kind = name.split(".")[-2]
    if name.endswith(".bias"):
        return noise
    if kind.endswith("norm"):
        # A tied embedding is small, or each token would predict itself; this restores the logits.
        centre = {"q_norm": 1.5, "k_norm": 1.5, "norm": 3.0 if tied else 1.0}.get(kind, 1.0)
        return np.float32(centre) * (np.float32(1.0) + np.float32(0.5) * noise)
    if kind == "embed_tokens":
        return np.float32(0.5 if tied else 1.5) * noise
    if kind == "lm_head":
        return np.float32(1.5) * noise
    gain = {"v_proj": 2.0, "o_proj": 3.0}.get(kind, 2.5)
    return np.float32(gain / np.sqrt(shape[1])) * noise


def prompts(vocab_size: int, seed: int) -> list[np.ndarray]:
    """The 50 prompts of a case, i32[length]; the first eight have one each of the lengths."""
    lengths = (PROMPT_LENGTHS[index % len(PROMPT_LENGTHS)] for index in range(NUM_PROMPTS))
    return [
        (raw_bits(seed, f"prompt {index}", length) % vocab_size).astype(np.int32)
        for index, length in enumerate(lengths)
    ]


def digest(weights: dict[str, np.ndarray]) -> str:
    """A hash of the weights, to tell a wrong golden file from a wrong decoder."""
    hasher = hashlib.sha256()
    for name in sorted(weights):
        hasher.update(name.encode())
        hasher.update(weights[name].tobytes())
    return hasher.hexdigest()


def write_folder(folder: Path, fields: dict[str, Any], weights: dict[str, np.ndarray]) -> None:
    """Writes a case as a Hugging Face model folder."""
    (folder / "config.json").write_text(json.dumps(fields))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
