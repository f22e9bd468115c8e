"""Reading config.json: published configurations, both layouts, and every way to be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dendrite_jax.models.config import (
    AttentionSpec,
    LayerSpec,
    MlpSpec,
    ModelConfig,
    Rope,
    RopeScaling,
)
from dendrite_jax.models.families import ModelConfigError, read_config
from models.published_configs import (
    LLAMA31_8B,
    MISTRAL_7B_V01,
    QWEN3_06B,
    QWEN25_HALF_B,
    without,
)


def windows(config: ModelConfig) -> tuple[int | None, ...]:
    return tuple(spec.attention.window for spec in config.layers)


def biases(config: ModelConfig) -> tuple[bool, bool, bool]:
    """Of q, k and v, of the attention's output, and of the perceptron; in the first layer."""
    spec = config.layers[0]
    return spec.attention.qkv_bias, spec.attention.output_bias, spec.mlp.bias


def test_llama_31() -> None:
    rope = Rope(500000.0, RopeScaling(8.0, 1.0, 4.0, 8192))
    layer = LayerSpec(AttentionSpec(32, 8, 128, rope), MlpSpec(14336), norm_eps=1e-5)
    assert read_config(LLAMA31_8B) == ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=128256,
        hidden_size=4096,
        layers=32 * (layer,),
        max_position=131072,
        norm_eps=1e-5,
        bos_id=128000,
        eos_ids=(128001, 128008, 128009),
        compute_dtype="bfloat16",
    )


def test_mistral_has_its_window_in_every_layer() -> None:
    config = read_config(MISTRAL_7B_V01)
    assert windows(config) == (4096,) * 32
    assert biases(config) == (False, False, False)
    assert not config.layers[0].attention.qk_norm
    assert (config.bos_id, config.eos_ids) == (1, (2,))
    assert windows(read_config(without(MISTRAL_7B_V01, "sliding_window"))) == (4096,) * 32
    assert windows(read_config({**MISTRAL_7B_V01, "sliding_window": None})) == (None,) * 32
    assert read_config({**MISTRAL_7B_V01, "head_dim": 160}).layers[0].attention.head_dim == 160


def test_qwen2_has_qkv_biases_only_and_no_window_unless_asked() -> None:
    config = read_config(QWEN25_HALF_B)
    assert biases(config) == (True, False, False)
    attention = config.layers[0].attention
    assert (attention.heads, attention.kv_heads, attention.head_dim) == (14, 2, 64)
    assert config.tie_word_embeddings
    assert windows(config) == (None,) * 24


def test_qwen2_windows() -> None:
    windowed = {**QWEN25_HALF_B, "use_sliding_window": True, "sliding_window": 100}
    upper = windows(read_config({**windowed, "max_window_layers": 21}))
    assert upper == (None,) * 21 + (100,) * 3
    assert windows(read_config(without(windowed, "max_window_layers"))) == (None,) * 24
    types = ["full_attention", "sliding_attention"] * 12
    config = read_config({**windowed, "layer_types": types})
    assert windows(config) == (None, 100) * 12
    assert len({id(spec) for spec in config.layers}) == 2


def test_qwen3_has_qk_norm_and_its_own_head_dim() -> None:
    attention = read_config(QWEN3_06B).layers[0].attention
    assert attention.qk_norm
    assert attention.head_dim == 128
    assert attention.rope == Rope(1e6)
    assert read_config(without(QWEN3_06B, "head_dim")).layers[0].attention.head_dim == 128
    assert biases(read_config({**QWEN3_06B, "attention_bias": True})) == (True, True, False)


def test_llama_biases() -> None:
    config = read_config({**LLAMA31_8B, "attention_bias": True, "mlp_bias": True})
    assert biases(config) == (True, True, True)


@pytest.mark.parametrize("source", [LLAMA31_8B, MISTRAL_7B_V01, QWEN25_HALF_B, QWEN3_06B])
def test_both_layouts_read_the_same(source: dict[str, Any]) -> None:
    new = without(source, "rope_theta", "rope_scaling", "torch_dtype")
    new["dtype"] = source["torch_dtype"]
    new["rope_parameters"] = {
        "rope_type": "default",
        "rope_theta": source["rope_theta"],
        **(source.get("rope_scaling") or {}),
    }
    assert read_config(new) == read_config(source)


def test_absent_optional_fields() -> None:
    optional = ("rope_theta", "rope_scaling", "tie_word_embeddings", "attention_bias", "mlp_bias")
    config = read_config(
        without(LLAMA31_8B, *optional, "num_key_value_heads", "hidden_act", "eos_token_id")
    )
    assert config.layers[0].attention.kv_heads == 32
    assert config.layers[0].attention.rope == Rope(10000.0)
    assert not any((config.tie_word_embeddings, *biases(config)))
    assert config.eos_ids == ()


def test_model_type_stands_in_for_absent_architectures() -> None:
    fields = without(QWEN3_06B, "architectures")
    assert read_config(fields).architecture == "Qwen3ForCausalLM"


def test_generation_config_decides_on_the_token_ids(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN3_06B))
    assert read_config(tmp_path).eos_ids == (151645,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [151645, 151643]}')
    config = read_config(tmp_path / "config.json")
    assert config.eos_ids == (151645, 151643)
    assert config.bos_id == 151643


REQUIRED = (
    "hidden_size",
    "intermediate_size",
    "max_position_embeddings",
    "num_attention_heads",
    "num_hidden_layers",
    "rms_norm_eps",
    "vocab_size",
)


@pytest.mark.parametrize("field", REQUIRED)
def test_missing_field_is_named(field: str) -> None:
    with pytest.raises(ModelConfigError, match=f"^{field} is missing$"):
        read_config(without(LLAMA31_8B, field))


def test_missing_kv_heads_are_an_error_where_the_families_differ() -> None:
    with pytest.raises(ModelConfigError, match=r"^num_key_value_heads is missing$"):
        read_config(without(QWEN3_06B, "num_key_value_heads"))


LLAMA3_ROPE = LLAMA31_8B["rope_scaling"]
WRONG: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    (LLAMA31_8B, {"architectures": ["GPT2LMHeadModel"]}, r"GPT2LMHeadModel.*Qwen3ForCausalLM"),
    (LLAMA31_8B, {"architectures": None, "model_type": "gpt2"}, "model_type = 'gpt2'.*qwen3"),
    (LLAMA31_8B, {"hidden_act": "gelu"}, "hidden_act = 'gelu'.*'silu'"),
    (LLAMA31_8B, {"quantization_config": {"quant_method": "gptq"}}, "quantization_config"),
    (LLAMA31_8B, {"hidden_size": 0}, "hidden_size = 0: expected an integer > 0"),
    (LLAMA31_8B, {"num_hidden_layers": True}, "num_hidden_layers = True"),
    (LLAMA31_8B, {"vocab_size": "many"}, "vocab_size = 'many'"),
    (LLAMA31_8B, {"rms_norm_eps": -1e-5}, "rms_norm_eps = -1e-05"),
    (LLAMA31_8B, {"rms_norm_eps": float("nan")}, "rms_norm_eps = nan"),
    (LLAMA31_8B, {"attention_bias": "no"}, "attention_bias = 'no'"),
    (LLAMA31_8B, {"num_key_value_heads": 5}, "num_attention_heads = 32.*num_key_value_heads = 5"),
    (LLAMA31_8B, {"num_attention_heads": 24}, "hidden_size = 4096.*num_attention_heads = 24"),
    (LLAMA31_8B, {"head_dim": 33}, "head_dim = 33"),
    (LLAMA31_8B, {"rope_theta": 0}, "rope_theta = 0"),
    (LLAMA31_8B, {"rope_scaling": "x2"}, "rope_scaling = 'x2'"),
    (
        LLAMA31_8B,
        {"rope_scaling": {"type": "linear", "factor": 2.0}},
        "rope_type = 'linear'.*'llama3'",
    ),
    (LLAMA31_8B, {"rope_scaling": None, "rope_parameters": {"rope_type": "yarn"}}, "'yarn'"),
    (LLAMA31_8B, {"rope_scaling": without(LLAMA3_ROPE, "factor")}, "factor is missing"),
    (LLAMA31_8B, {"rope_scaling": {**LLAMA3_ROPE, "factor": -8}}, "factor = -8"),
    (
        LLAMA31_8B,
        {"rope_scaling": {**LLAMA3_ROPE, "high_freq_factor": 1.0}},
        "high_freq_factor = 1.0.*low_freq_factor = 1.0",
    ),
    (LLAMA31_8B, {"rope_scaling": {"full_attention": {"rope_theta": 1e4}}}, "full_attention"),
    (LLAMA31_8B, {"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    (LLAMA31_8B, {"eos_token_id": "</s>"}, "eos_token_id.*'</s>'"),
    (LLAMA31_8B, {"bos_token_id": -1}, "bos_token_id.*-1"),
    (LLAMA31_8B, {"torch_dtype": 16}, "torch_dtype = 16"),
    (LLAMA31_8B, {"dtype": "int8"}, "dtype = 'int8'.*bfloat16"),
    (MISTRAL_7B_V01, {"sliding_window": -1}, "sliding_window = -1"),
    (MISTRAL_7B_V01, {"layer_types": ["full_attention"] * 32}, "sliding_window = 4096"),
    (QWEN3_06B, {"layer_types": ["full_attention"]}, "num_hidden_layers = 28"),
    (QWEN3_06B, {"layer_types": ["linear_attention"] * 28}, "'linear_attention'"),
    (QWEN3_06B, {"layer_types": ["sliding_attention"] * 28}, "no sliding_window"),
    (QWEN3_06B, {"use_sliding_window": True, "max_window_layers": None}, "max_window_layers"),
]


@pytest.mark.parametrize(("fields", "change", "message"), WRONG)
def test_wrong_value_is_named(fields: dict[str, Any], change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelConfigError, match=message):
        read_config({**fields, **change})


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("[]", "expected a JSON object, found list"), (None, "cannot be")],
)
def test_unreadable_file_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelConfigError, match=rf"config\.json: .*{message}"):
        read_config(tmp_path)
