"""The families of models: each a file that says how its `config.json` and tensors are read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dendrite_jax.checkpoints import hf_files
from dendrite_jax.checkpoints.weights import Param
from dendrite_jax.models.config import ModelConfig
from dendrite_jax.models.families import llama, mistral, qwen2, qwen3
from dendrite_jax.models.families.family import Family
from dendrite_jax.models.families.hf_config import Fields, ModelConfigError

__all__ = ["FAMILIES", "Family", "ModelConfigError", "param_layout", "read_config"]

FAMILIES = {
    family.architecture: family
    for family in (llama.FAMILY, mistral.FAMILY, qwen2.FAMILY, qwen3.FAMILY)
}
"""By the name in `architectures`."""


def read_config(source: str | Path | Mapping[str, Any]) -> ModelConfig:
    """Reads the configuration of a decoder.

    Args:
      source: a `config.json`, the folder that holds one, or its content. With a file or a
        folder, the token ids in the `generation_config.json` beside it take precedence.

    Raises:
      ModelConfigError: the file cannot be read, or a field is missing, inconsistent or not
        supported; the message names the field, its value and what is supported.
    """
    generation: dict[str, Any] = {}
    if isinstance(source, Mapping):
        values = dict(source)
    else:
        path = Path(source)
        path = path / hf_files.CONFIG if path.is_dir() else path
        values = hf_files.read_json(path, ModelConfigError)
        generation = hf_files.read_json_if_present(
            path.with_name(hf_files.GENERATION_CONFIG), ModelConfigError
        )

    family = FAMILIES[_architecture(values)]
    _reject_unsupported(values)
    fields = Fields(values)
    bos_ids = hf_files.token_ids("bos_token_id", generation, values, error=ModelConfigError)
    return ModelConfig(
        architecture=family.architecture,
        vocab_size=fields.positive_int("vocab_size"),
        hidden_size=fields.positive_int("hidden_size"),
        layers=family.layers(fields),
        max_position=fields.positive_int("max_position_embeddings"),
        norm_eps=fields.positive_float("rms_norm_eps"),
        tie_word_embeddings=fields.flag("tie_word_embeddings"),
        bos_id=bos_ids[0] if bos_ids else None,
        eos_ids=hf_files.token_ids("eos_token_id", generation, values, error=ModelConfigError),
        compute_dtype=fields.dtype(),
    )


def param_layout(config: ModelConfig) -> tuple[Param, ...]:
    """The parameters of a configuration's decoder, and the tensors that each is made of."""
    return tuple(FAMILIES[config.architecture].layout(config))


def _architecture(values: Mapping[str, Any]) -> str:
    named = values.get("architectures")
    if named is None:
        model_type = values.get("model_type")
        for architecture, family in FAMILIES.items():
            if family.model_type == model_type:
                return architecture
        known = ", ".join(family.model_type for family in FAMILIES.values())
        raise ModelConfigError(
            f"no architectures, and model_type = {model_type!r} is not supported; "
            f"supported: {known}"
        )
    for architecture in named if isinstance(named, list) else [named]:
        if architecture in FAMILIES:
            return architecture
    raise ModelConfigError(
        f"architectures = {named!r} is not supported; supported: {', '.join(FAMILIES)}"
    )


def _reject_unsupported(values: Mapping[str, Any]) -> None:
    activation = values.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        raise ModelConfigError(f"hidden_act = {activation!r} is not supported; supported: 'silu'")
    if values.get("quantization_config") is not None:
        raise ModelConfigError(
            "quantization_config is set: quantised checkpoints are not supported; "
            "use the checkpoint in float32, float16 or bfloat16"
        )
