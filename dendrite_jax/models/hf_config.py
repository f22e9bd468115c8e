"""Hugging Face `config.json` to `ModelConfig`.

Both layouts are read: the one of transformers 4 (`rope_theta`, `rope_scaling`, `torch_dtype`) and
the one of transformers 5 (`rope_parameters`, `dtype`). Absent optional fields take the values that
transformers gives them. A value that would change the results and is not supported is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dendrite_jax.checkpoints import hf_files
from dendrite_jax.models.config import ModelConfig, RopeScaling


class ModelConfigError(ValueError):
    """A model configuration that is incomplete, inconsistent or not supported."""


@dataclass(frozen=True)
class _Family:
    """What an architecture fixes, and which optional fields of config.json it obeys."""

    model_type: str
    qkv_bias: bool = False
    reads_attention_bias: bool = False
    reads_mlp_bias: bool = False
    qk_norm: bool = False
    default_head_dim: int | None = None
    """None = hidden_size / num_attention_heads."""
    windowed_layers: Literal["none", "all", "chosen"] = "none"


_FAMILIES = {
    "LlamaForCausalLM": _Family("llama", reads_attention_bias=True, reads_mlp_bias=True),
    "MistralForCausalLM": _Family("mistral", windowed_layers="all"),
    "Qwen2ForCausalLM": _Family("qwen2", qkv_bias=True, windowed_layers="chosen"),
    "Qwen3ForCausalLM": _Family(
        "qwen3",
        reads_attention_bias=True,
        qk_norm=True,
        default_head_dim=128,
        windowed_layers="chosen",
    ),
}
_DEFAULT_ROPE_THETA = 10000.0
_DEFAULT_WINDOW = 4096
_DEFAULT_MAX_WINDOW_LAYERS = 28
_FULL, _SLIDING = "full_attention", "sliding_attention"


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

    architecture = _architecture(values)
    family = _FAMILIES[architecture]
    _reject_unsupported(values)
    hidden_size = _positive_int(values, "hidden_size")
    num_layers = _positive_int(values, "num_hidden_layers")
    num_heads = _positive_int(values, "num_attention_heads")
    attention_bias = family.reads_attention_bias and _flag(values, "attention_bias")
    rope_theta, rope_scaling = _rope(values)
    bos_ids = hf_files.token_ids("bos_token_id", generation, values, error=ModelConfigError)
    return ModelConfig(
        architecture=architecture,
        vocab_size=_positive_int(values, "vocab_size"),
        hidden_size=hidden_size,
        intermediate_size=_positive_int(values, "intermediate_size"),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=_num_kv_heads(values, family, num_heads),
        head_dim=_head_dim(values, family, hidden_size, num_heads),
        max_position=_positive_int(values, "max_position_embeddings"),
        rms_norm_eps=_positive_float(values, "rms_norm_eps"),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        tie_word_embeddings=_flag(values, "tie_word_embeddings"),
        qkv_bias=family.qkv_bias or attention_bias,
        output_bias=attention_bias,
        mlp_bias=family.reads_mlp_bias and _flag(values, "mlp_bias"),
        qk_norm=family.qk_norm,
        windows=_windows(values, family, num_layers),
        bos_id=bos_ids[0] if bos_ids else None,
        eos_ids=hf_files.token_ids("eos_token_id", generation, values, error=ModelConfigError),
        checkpoint_dtype=_dtype(values),
    )


def _architecture(values: Mapping[str, Any]) -> str:
    named = values.get("architectures")
    if named is None:
        model_type = values.get("model_type")
        for architecture, family in _FAMILIES.items():
            if family.model_type == model_type:
                return architecture
        known = ", ".join(family.model_type for family in _FAMILIES.values())
        raise ModelConfigError(
            f"no architectures, and model_type = {model_type!r} is not supported; "
            f"supported: {known}"
        )
    for architecture in named if isinstance(named, list) else [named]:
        if architecture in _FAMILIES:
            return architecture
    raise ModelConfigError(
        f"architectures = {named!r} is not supported; supported: {', '.join(_FAMILIES)}"
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


def _required(values: Mapping[str, Any], field: str) -> Any:
    if values.get(field) is None:
        raise ModelConfigError(f"{field} is missing")
    return values[field]


def _positive_int(values: Mapping[str, Any], field: str) -> int:
    value = _required(values, field)
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ModelConfigError(f"{field} = {value!r}: expected an integer > 0")
    return value


def _positive_float(values: Mapping[str, Any], field: str) -> float:
    value = _required(values, field)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
        raise ModelConfigError(f"{field} = {value!r}: expected a number > 0")
    return float(value)


def _flag(values: Mapping[str, Any], field: str) -> bool:
    value = values.get(field, False)
    if not isinstance(value, bool):
        raise ModelConfigError(f"{field} = {value!r}: expected true or false")
    return value


def _num_kv_heads(values: Mapping[str, Any], family: _Family, num_heads: int) -> int:
    # Llama is older than the field; the other families differ in what an absent one would mean.
    optional = family.model_type == "llama" or "num_key_value_heads" in values
    if optional and values.get("num_key_value_heads") is None:
        return num_heads
    num_kv_heads = _positive_int(values, "num_key_value_heads")
    if num_heads % num_kv_heads:
        raise ModelConfigError(
            f"num_attention_heads = {num_heads} is not a multiple of "
            f"num_key_value_heads = {num_kv_heads}"
        )
    return num_kv_heads


def _head_dim(values: Mapping[str, Any], family: _Family, hidden_size: int, num_heads: int) -> int:
    if values.get("head_dim") is not None:
        head_dim = _positive_int(values, "head_dim")
    elif family.default_head_dim is not None:
        head_dim = family.default_head_dim
    elif hidden_size % num_heads:
        raise ModelConfigError(
            f"head_dim is missing and hidden_size = {hidden_size} is not a multiple of "
            f"num_attention_heads = {num_heads}"
        )
    else:
        head_dim = hidden_size // num_heads
    if head_dim % 2:
        raise ModelConfigError(f"head_dim = {head_dim}: rotary embedding needs an even number")
    return head_dim


def _rope(values: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """The base of the rotary embedding and its rescaling, from either layout."""
    field = "rope_scaling" if values.get("rope_scaling") else "rope_parameters"
    rope = values.get(field) or {}
    if not isinstance(rope, Mapping):
        raise ModelConfigError(f"{field} = {rope!r}: expected an object")
    if any(isinstance(value, Mapping) for value in rope.values()):
        raise ModelConfigError(
            f"{field} differs by kind of layer ({', '.join(rope)}): not supported; "
            "supported: one set of values for all layers"
        )
    if values.get("partial_rotary_factor", rope.get("partial_rotary_factor", 1.0)) != 1.0:
        raise ModelConfigError("partial_rotary_factor is set: only 1.0 is supported")

    if "rope_theta" in rope:
        theta = _positive_float(rope, "rope_theta")
    elif values.get("rope_theta") is not None:
        theta = _positive_float(values, "rope_theta")
    else:
        theta = _DEFAULT_ROPE_THETA

    rope_type = rope.get("rope_type", rope.get("type", "default"))
    if rope_type == "default":
        return theta, None
    if rope_type != "llama3":
        raise ModelConfigError(
            f"{field}.rope_type = {rope_type!r} is not supported; supported: 'default', 'llama3'"
        )
    return theta, _llama3_scaling(rope)


def _llama3_scaling(rope: Mapping[str, Any]) -> RopeScaling:
    scaling = RopeScaling(
        factor=_positive_float(rope, "factor"),
        low_freq_factor=_positive_float(rope, "low_freq_factor"),
        high_freq_factor=_positive_float(rope, "high_freq_factor"),
        original_max_position=_positive_int(rope, "original_max_position_embeddings"),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise ModelConfigError(
            f"high_freq_factor = {scaling.high_freq_factor} must be greater than "
            f"low_freq_factor = {scaling.low_freq_factor}"
        )
    return scaling


def _windows(values: Mapping[str, Any], family: _Family, num_layers: int) -> tuple[int | None, ...]:
    """The window of each layer; empty when no layer has one."""
    if family.windowed_layers == "none":
        return ()
    windowed = family.windowed_layers == "all" or _flag(values, "use_sliding_window")
    window = None
    if windowed and values.get("sliding_window", _DEFAULT_WINDOW) is not None:
        window = _positive_int({"sliding_window": _DEFAULT_WINDOW, **values}, "sliding_window")
    first_windowed = 0
    if family.windowed_layers == "chosen":
        first_windowed = values.get("max_window_layers", _DEFAULT_MAX_WINDOW_LAYERS)
        if isinstance(first_windowed, bool) or not isinstance(first_windowed, int):
            raise ModelConfigError(f"max_window_layers = {first_windowed!r}: expected an integer")
    default = [
        _SLIDING if window is not None and layer >= first_windowed else _FULL
        for layer in range(num_layers)
    ]
    types = values.get("layer_types")
    if types is None:
        types = default
    _check_layer_types(types, num_layers, window)
    if family.windowed_layers == "all" and types != default:
        raise ModelConfigError(
            f"layer_types = {types!r} contradicts sliding_window = {window!r}, which "
            f"{family.model_type} applies to every layer"
        )
    if _SLIDING not in types:
        return ()
    return tuple(window if kind == _SLIDING else None for kind in types)


def _check_layer_types(types: Any, num_layers: int, window: int | None) -> None:
    if not isinstance(types, list) or len(types) != num_layers:
        raise ModelConfigError(
            f"layer_types = {types!r}: expected a list of num_hidden_layers = {num_layers} names"
        )
    for kind in types:
        if kind not in (_FULL, _SLIDING):
            raise ModelConfigError(
                f"layer_types has {kind!r}, which is not supported; "
                f"supported: {_FULL!r}, {_SLIDING!r}"
            )
    if window is None and _SLIDING in types:
        raise ModelConfigError(f"layer_types has {_SLIDING!r} but no sliding_window is in use")


def _dtype(values: Mapping[str, Any]) -> str | None:
    field = "dtype" if values.get("dtype") is not None else "torch_dtype"
    value = values.get(field)
    if value is not None and not isinstance(value, str):
        raise ModelConfigError(f"{field} = {value!r}: expected the name of a dtype")
    return value
