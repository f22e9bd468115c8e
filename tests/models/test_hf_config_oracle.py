"""read_config against transformers' own configuration classes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from dendrite_jax.models.families import read_config
from models.published_configs import LLAMA31_8B, MISTRAL_7B_V01, QWEN3_06B, QWEN25_HALF_B, without
from models.tiny_models import CASES

PUBLISHED = {
    "llama": LLAMA31_8B,
    "mistral": MISTRAL_7B_V01,
    "qwen2": QWEN25_HALF_B,
    "qwen3": QWEN3_06B,
}
OPTIONAL = (
    "attention_bias",
    "head_dim",
    "hidden_act",
    "max_window_layers",
    "mlp_bias",
    "rope_scaling",
    "rope_theta",
    "sliding_window",
    "tie_word_embeddings",
    "use_sliding_window",
)
BARE = {f"{name} bare": without(fields, *OPTIONAL) for name, fields in PUBLISHED.items()}
SOURCES: dict[str, dict[str, Any]] = {**CASES, **PUBLISHED, **BARE}


@pytest.fixture(params=SOURCES)
def fields(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """A config.json's content, also written to the test's folder."""
    (tmp_path / "config.json").write_text(json.dumps(SOURCES[request.param]))
    return SOURCES[request.param]


def test_fields_and_defaults_equal_transformers(fields: dict[str, Any], tmp_path: Path) -> None:
    theirs, ours = AutoConfig.from_pretrained(tmp_path), read_config(fields)
    rope = theirs.rope_parameters
    default_head_dim = theirs.hidden_size // theirs.num_attention_heads
    assert ours.norm_eps == theirs.rms_norm_eps
    assert ours.tie_word_embeddings == theirs.tie_word_embeddings
    for spec in ours.layers:
        attention = spec.attention
        assert spec.norm_eps == theirs.rms_norm_eps
        assert attention.kv_heads == theirs.num_key_value_heads
        assert attention.head_dim == getattr(theirs, "head_dim", default_head_dim)
        assert attention.rope.theta == rope["rope_theta"]
        assert (attention.rope.scaling is not None) == (rope["rope_type"] == "llama3")
        if attention.rope.scaling is not None:
            assert attention.rope.scaling.factor == rope["factor"]
            original = rope["original_max_position_embeddings"]
            assert attention.rope.scaling.original_max_position == original
    if theirs.model_type == "mistral":
        windows = (theirs.sliding_window,) * theirs.num_hidden_layers
    elif theirs.model_type == "llama":
        windows = (None,) * theirs.num_hidden_layers
    else:
        kinds = theirs.layer_types
        windows = tuple(theirs.sliding_window if "sliding" in kind else None for kind in kinds)
    assert tuple(spec.attention.window for spec in ours.layers) == windows


def test_config_saved_again_by_transformers_reads_the_same(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "again").mkdir()
    AutoConfig.from_pretrained(tmp_path).save_pretrained(tmp_path / "again")
    again = json.loads((tmp_path / "again" / "config.json").read_text())
    again["architectures"] = fields["architectures"]
    assert "rope_parameters" in again
    ours = read_config(fields)
    assert replace(read_config(again), compute_dtype=ours.compute_dtype) == ours
