"""Loading safetensors: values, dtypes, placement, memory, and every way to be damaged."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from dendrite_jax.checkpoints.safetensors_file import WeightsError
from dendrite_jax.kernels.linear import Dense
from dendrite_jax.models.config import AttentionSpec, LayerSpec, MlpSpec, ModelConfig
from dendrite_jax.models.families import param_layout, read_config
from dendrite_jax.models.pretrained import CheckpointWarning, load_params
from models.tiny_models import CASES, tiny_weights, write_folder

FIELDS = CASES["llama_biases"]
CONFIG = read_config(FIELDS)
WEIGHTS = tiny_weights(FIELDS, seed=0)
EMBEDDING, OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
Q_PROJ = "model.layers.1.self_attn.q_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound model folder."""
    write_folder(tmp_path, FIELDS, WEIGHTS)
    return tmp_path


def save(folder: Path, weights: dict[str, np.ndarray]) -> None:
    save_file(weights, folder / "model.safetensors")


def save_shards(folder: Path, weights: dict[str, np.ndarray]) -> dict[str, Any]:
    """Splits the checkpoint over two files, every second tensor in the second; the index."""
    (folder / "model.safetensors").unlink(missing_ok=True)
    weight_map = {}
    for shard in (0, 1):
        name = f"model-0000{shard + 1}-of-00002.safetensors"
        tensors = dict(list(weights.items())[shard::2])
        save_file(tensors, folder / name)
        weight_map.update(dict.fromkeys(tensors, name))
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def leaves(params: dict[str, Any]) -> dict[str, np.ndarray]:
    paths = jax.tree_util.tree_flatten_with_path(params)[0]
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in paths}


def assert_same(one: Any, other: Any) -> None:
    """Asserts that two pytrees of arrays are equal."""
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_parameters_are_the_tensors_fused(folder: Path) -> None:
    params = load_params(folder, CONFIG)
    prefix = "model.layers.1."
    expected = {
        "input_norm": ["input_layernorm.weight"],
        "qkv": [f"self_attn.{name}_proj.weight" for name in "qkv"],
        "qkv_bias": [f"self_attn.{name}_proj.bias" for name in "qkv"],
        "o": ["self_attn.o_proj.weight"],
        "o_bias": ["self_attn.o_proj.bias"],
        "post_norm": ["post_attention_layernorm.weight"],
        "gate_up": ["mlp.gate_proj.weight", "mlp.up_proj.weight"],
        "gate_up_bias": ["mlp.gate_proj.bias", "mlp.up_proj.bias"],
        "down": ["mlp.down_proj.weight"],
        "down_bias": ["mlp.down_proj.bias"],
    }
    layer: dict[str, Any] = {
        key: np.concatenate([WEIGHTS[prefix + name] for name in names])
        for key, names in expected.items()
    }
    layer |= {key: Dense(jnp.asarray(layer[key])) for key in ("qkv", "o", "gate_up", "down")}
    assert_same(params["layers"][1], layer)
    assert_same(params["embed"], WEIGHTS["model.embed_tokens.weight"])
    assert_same(params["final_norm"], WEIGHTS["model.norm.weight"])
    assert_same(params["lm_head"], Dense(jnp.asarray(WEIGHTS["lm_head.weight"])))
    assert set(params) == {"embed", "final_norm", "lm_head", "layers"}


def test_tied_and_qk_norm_layout(tmp_path: Path) -> None:
    fields = CASES["qwen3_gqa4_window_tied"]
    weights = tiny_weights(fields, seed=0)
    # Some checkpoints repeat the tied matrix.
    write_folder(tmp_path, fields, {**weights, OUTPUT: weights[EMBEDDING].copy()})
    params = load_params(tmp_path, read_config(tmp_path))
    assert set(params) == {"embed", "final_norm", "layers"}
    norms = {"q_norm", "k_norm", "input_norm", "post_norm"}
    assert set(params["layers"][0]) == norms | {"qkv", "o", "gate_up", "down"}
    assert_same(params["layers"][1]["k_norm"], weights["model.layers.1.self_attn.k_norm.weight"])


def test_a_tied_matrix_is_read_under_either_name(tmp_path: Path) -> None:
    fields = CASES["qwen2_gqa7_tied"]
    weights = tiny_weights(fields, seed=0)
    embedding = weights.pop(EMBEDDING)
    write_folder(tmp_path, fields, {**weights, OUTPUT: embedding})
    params = load_params(tmp_path, read_config(tmp_path))
    assert_same(params["embed"], embedding)
    assert "lm_head" not in params


def test_what_the_model_does_not_need_is_named_in_one_warning(folder: Path) -> None:
    extra = ["value_head.weight", "score.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"]
    save(folder, WEIGHTS | dict.fromkeys(extra, np.ones((1, 64), np.float16)))
    with pytest.warns(CheckpointWarning) as caught:
        params = load_params(folder, CONFIG)
    (warning,) = caught
    assert f"left out 3 that a LlamaForCausalLM does not need: {', '.join(sorted(extra))}" in str(
        warning.message
    )
    save(folder, WEIGHTS)
    assert_same(params, load_params(folder, CONFIG))


def test_an_index_may_name_the_output_that_a_tied_model_lacks(tmp_path: Path) -> None:
    fields = CASES["qwen2_gqa7_tied"]
    weights = tiny_weights(fields, seed=0)
    write_folder(tmp_path, fields, weights)
    index = save_shards(tmp_path, weights)
    shard = next(iter(index["weight_map"].values()))
    for place in (shard, "model-00009-of-00009.safetensors"):
        stale = {"weight_map": index["weight_map"] | {OUTPUT: place}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(stale))
        with pytest.warns(CheckpointWarning, match=r"left out 1 .*: lm_head\.weight"):
            params = load_params(tmp_path, read_config(tmp_path))
        assert_same(params["embed"], weights[EMBEDDING])
        assert "lm_head" not in params


def test_shards_load_as_one_file_does(folder: Path) -> None:
    whole = load_params(folder, CONFIG)
    save_shards(folder, WEIGHTS)
    assert_same(load_params(folder, CONFIG), whole)


@pytest.mark.parametrize("stored", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("asked", [None, "float32", "float16", "bfloat16"])
def test_dtypes(folder: Path, stored: type, asked: str | None) -> None:
    save(folder, {name: value.astype(stored) for name, value in WEIGHTS.items()})
    params = load_params(folder, CONFIG, asked)
    expected = WEIGHTS["lm_head.weight"].astype(stored).astype(asked or stored)
    assert params["lm_head"].dtype == expected.dtype
    np.testing.assert_array_equal(params["lm_head"].values, expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {expected.dtype}


def test_fused_parts_of_different_dtypes_take_their_common_type(folder: Path) -> None:
    save(folder, {**WEIGHTS, Q_PROJ: WEIGHTS[Q_PROJ].astype(ml_dtypes.bfloat16)})
    params = load_params(folder, CONFIG)
    assert params["layers"][1]["qkv"].dtype == jnp.float32
    rows = len(WEIGHTS[Q_PROJ])
    np.testing.assert_array_equal(
        params["layers"][1]["qkv"].values[:rows],
        WEIGHTS[Q_PROJ].astype(ml_dtypes.bfloat16).astype(np.float32),
    )


def test_parameters_outlive_the_files(folder: Path) -> None:
    params = load_params(folder, CONFIG)
    before = leaves(jax.tree.map(np.array, params))
    size = (folder / "model.safetensors").stat().st_size
    (folder / "model.safetensors").write_bytes(bytes(size))
    assert_same(leaves(params), before)


def test_progress_counts_the_bytes_of_the_checkpoint(folder: Path) -> None:
    calls: list[tuple[int, int]] = []
    load_params(
        folder, CONFIG, "bfloat16", progress=lambda done, total: calls.append((done, total))
    )
    total = sum(value.nbytes for value in WEIGHTS.values())
    done = [call[0] for call in calls]
    assert {call[1] for call in calls} == {total}
    assert done == sorted(set(done))
    assert done[-1] == total
    assert len(done) == len(list(param_layout(CONFIG)))


def test_host_memory_stays_below_one_copy_of_the_parameters(tmp_path: Path) -> None:
    layer = LayerSpec(AttentionSpec(8, 8, 128), MlpSpec(2048))
    config = ModelConfig("LlamaForCausalLM", 1024, 1024, 5 * (layer,), 64)
    shapes = {part.name: part.shape for param in param_layout(config) for part in param.parts}
    save(tmp_path, {name: np.ones(shape, ml_dtypes.bfloat16) for name, shape in shapes.items()})
    sizes = [4 * int(np.prod(param.shape)) for param in param_layout(config)]
    placed = 0
    extra: list[int] = []

    def measure(done: int, total: int) -> None:
        nonlocal placed
        placed += sizes[len(extra)]
        extra.append(_anonymous_bytes() - before - placed)

    before = _anonymous_bytes()
    load_params(tmp_path, config, "float32", progress=measure)
    # On the CPU backend the parameters are host memory themselves. Beside them, a buffer or two of
    # the largest parameter (16 MiB) and the allocator's slack; a whole copy would be 200 MiB.
    assert max(extra) < 4 * max(sizes)


def _anonymous_bytes() -> int:
    """Resident memory that is not pages of a file."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def test_placement_is_asked_for_each_parameter(folder: Path) -> None:
    asked: dict[str, tuple[int, ...]] = {}
    device = jax.devices()[0]

    def place(path: str, shape: tuple[int, ...]) -> jax.Device:
        asked[path] = shape
        return device

    params = load_params(folder, CONFIG, placement=place)
    assert asked["layers.1.qkv"] == params["layers"][1]["qkv"].shape
    assert asked["embed"] == params["embed"].shape
    assert len(asked) == len(jax.tree.leaves(params))


SHARDED = """
import sys, jax
from jax.sharding import NamedSharding, PartitionSpec
from dendrite_jax.models.families import read_config
from dendrite_jax.models.pretrained import load_params
jax.config.update("jax_num_cpu_devices", 2)
mesh = jax.make_mesh((2,), ("rows",))
sharding = NamedSharding(mesh, PartitionSpec("rows"))
params = load_params(sys.argv[1], read_config(sys.argv[1]), placement=sharding)
gate_up = params["layers"][0]["gate_up"].values
print([shard.data.shape for shard in gate_up.addressable_shards], float(abs(gate_up).sum()))
"""


def test_parameters_are_sharded_over_devices(folder: Path) -> None:
    command = [sys.executable, "-c", SHARDED, str(folder)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    shapes, total = output.rsplit(" ", 1)
    assert shapes == "[(96, 64), (96, 64)]"
    mlp = "model.layers.0.mlp"
    expected = sum(np.abs(WEIGHTS[f"{mlp}.{name}_proj.weight"]).sum() for name in ("gate", "up"))
    assert float(total) == pytest.approx(expected, rel=1e-5)


def test_dtype_must_be_floating(folder: Path) -> None:
    with pytest.raises(ValueError, match="dtype = int8"):
        load_params(folder, CONFIG, "int8")


def damage_header_length(data: bytes) -> bytes:
    return (1 << 40).to_bytes(8, "little") + data[8:]


def damage_header_json(data: bytes) -> bytes:
    return data[:8] + b"x" + data[9:]


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2],
        lambda data: data[:5],
        lambda data: b"",
        lambda data: data + b"\0",
        damage_header_length,
        damage_header_json,
    ],
    ids=["last byte", "half", "five bytes", "empty", "extra byte", "header length", "header json"],
)
def test_damaged_file_is_named(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    path = folder / "model.safetensors"
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)
    message = rf"model\.safetensors: not a whole safetensors file of {len(damaged)} bytes"
    with pytest.raises(WeightsError, match=message):
        load_params(folder, CONFIG)


def test_damaged_shard_is_named(folder: Path) -> None:
    save_shards(folder, WEIGHTS)
    path = folder / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match=r"model-00002-of-00002\.safetensors: not a whole"):
        load_params(folder, CONFIG)


WRONG_TENSORS: list[tuple[dict[str, np.ndarray | None], str]] = [
    ({Q_PROJ: None}, rf"tensor {Q_PROJ} is missing, expected with shape \(64, 64\)"),
    (
        {Q_PROJ: WEIGHTS[Q_PROJ][:-2]},
        rf"tensor {Q_PROJ} has shape \(62, 64\), expected \(64, 64\)",
    ),
    (
        {"lm_head.weight": WEIGHTS["lm_head.weight"].reshape(64, 128)},
        r"tensor lm_head\.weight has shape \(64, 128\), expected \(128, 64\)",
    ),
    (
        {Q_PROJ: WEIGHTS[Q_PROJ].astype(np.float64)},
        rf"tensor {Q_PROJ} has dtype F64; supported: F32, F16, BF16",
    ),
    ({Q_PROJ: WEIGHTS[Q_PROJ].astype(np.int8)}, rf"tensor {Q_PROJ} has dtype I8"),
    (
        {"model.layers.2.mlp.up_proj.weight": WEIGHTS["model.layers.1.mlp.up_proj.weight"]},
        r"tensor model\.layers\.2\.mlp\.up_proj\.weight does not belong .* 2 layers .*\(1 such",
    ),
]


@pytest.mark.parametrize(("change", "message"), WRONG_TENSORS)
@pytest.mark.parametrize("sharded", [False, True])
def test_wrong_tensor_is_named(
    folder: Path, change: dict[str, np.ndarray | None], message: str, sharded: bool
) -> None:
    merged = {**WEIGHTS, **change}
    weights = {name: value for name, value in merged.items() if value is not None}
    (save_shards if sharded else save)(folder, weights)
    with pytest.raises(WeightsError, match=message):
        load_params(folder, CONFIG)


def without_output_bias(spec: LayerSpec) -> LayerSpec:
    return replace(spec, attention=replace(spec.attention, output_bias=False))


def test_bias_that_the_config_denies_is_an_error(folder: Path) -> None:
    with pytest.raises(WeightsError, match=r"o_proj\.bias does not belong .*\(2 such"):
        load_params(folder, replace(CONFIG, layers=tuple(map(without_output_bias, CONFIG.layers))))


def test_index_errors(folder: Path) -> None:
    index = save_shards(folder, WEIGHTS)
    path = folder / "model.safetensors.index.json"

    def check(weight_map: Any, message: str) -> None:
        path.write_text(json.dumps({"weight_map": weight_map}))
        with pytest.raises(WeightsError, match=message):
            load_params(folder, CONFIG)

    sound = index["weight_map"]
    absent = "model-00003-of-00002.safetensors"
    check({**sound, Q_PROJ: absent}, rf"tensor {Q_PROJ} is in {absent}, which does not exist")
    other = next(name for name in sound.values() if name != sound[Q_PROJ])
    check({**sound, Q_PROJ: other}, rf"{other}: tensor {Q_PROJ} is missing")
    check({**sound, Q_PROJ: "../secret"}, r"'\.\./secret', expected a file name")
    check({**sound, Q_PROJ: 3}, "is in 3, expected a file name")
    check(None, r"index\.json: weight_map is missing")
    path.write_text("{")
    with pytest.raises(WeightsError, match=r"index\.json: not valid JSON"):
        load_params(folder, CONFIG)


def test_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no weights, expected model\.safetensors or"):
        load_params(tmp_path, CONFIG)
