"""Writes the embedded model as a Hugging Face Llama folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from safetensors.flax import save_file

from dendrite_jax.models.config import ModelConfig
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.training.network import Params
from dendrite_jax.tasks.game24.training.tokenizer_build import save_tokenizer


def save_checkpoint(
    folder: Path, params: Params, config: ModelConfig, record: dict[str, Any]
) -> None:
    """Writes `model.safetensors` (bf16), `config.json`, `tokenizer.json` and `training.json`.

    Args:
      folder: created if need be; files in it are replaced.
      params: of `network.init_params`.
      config: the shape of the model.
      record: how it was trained and what it scored; anything JSON can hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: tensor.astype(jnp.bfloat16)
        for name, tensor in hugging_face_tensors(params, config).items()
    }
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    _write_json(folder / "config.json", hugging_face_config(config))
    _write_json(folder / "training.json", record)
    save_tokenizer(folder)


def hugging_face_tensors(params: Params, config: ModelConfig) -> dict[str, jax.Array]:
    """The parameters under the names of `LlamaForCausalLM`; the head is tied and absent."""
    query_rows = config.num_heads * config.head_dim
    key_end = query_rows + config.num_kv_heads * config.head_dim
    tensors = {
        "model.embed_tokens.weight": params["embed"],
        "model.norm.weight": params["final_norm"],
    }
    for index, layer in enumerate(params["layers"]):
        q, k, v = jnp.split(layer["qkv"].values, (query_rows, key_end))
        gate, up = jnp.split(layer["gate_up"].values, 2)
        parts = {
            "input_layernorm": layer["input_norm"],
            "self_attn.q_proj": q,
            "self_attn.k_proj": k,
            "self_attn.v_proj": v,
            "self_attn.o_proj": layer["o"].values,
            "post_attention_layernorm": layer["post_norm"],
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": layer["down"].values,
        }
        tensors |= {f"model.layers.{index}.{name}.weight": part for name, part in parts.items()}
    return tensors


def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
    """The content of `config.json`."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "max_position_embeddings": config.max_position,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": vocab.BOS,
        "eos_token_id": vocab.EOS,
        "pad_token_id": vocab.PAD,
        "torch_dtype": "bfloat16",
    }


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1) + "\n")
