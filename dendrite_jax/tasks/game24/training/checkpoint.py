"""Writes the embedded model as a Hugging Face Llama folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from safetensors.flax import save_file

from dendrite_jax.models.config import ModelConfig
from dendrite_jax.models.families import param_layout
from dendrite_jax.models.families.layout import split_params
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
    return split_params(param_layout(config), params)


def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
    """The content of `config.json`."""
    spec = config.layers[0]  # all are alike
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": spec.mlp.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": spec.attention.heads,
        "num_key_value_heads": spec.attention.kv_heads,
        "head_dim": spec.attention.head_dim,
        "max_position_embeddings": config.max_position,
        "rms_norm_eps": spec.norm_eps,
        "rope_theta": spec.attention.rope.theta,
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
