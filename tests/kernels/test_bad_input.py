"""Arguments that do not fit are refused while a kernel is traced, with the field and the limit."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dendrite_jax.kernels.append_kv import append_kv
from dendrite_jax.kernels.copy_blocks import copy_blocks
from dendrite_jax.kernels.dispatch import UnsupportedError, choose_implementation, prefill_chunk
from dendrite_jax.kernels.paged_prefill import paged_prefill
from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.kernels.rope_append import rope_append
from dendrite_jax.kernels.tree_attention import make_plan, tree_attention
from dendrite_jax.kernels.verify_attention import verify_attention


def f32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def i32(*shape: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, jnp.int32)


POOLS: dict[str, Any] = {"k_pool": f32(2, 9, 2, 16, 64), "v_pool": f32(2, 9, 2, 16, 64), "layer": 1}
CACHE: dict[str, Any] = {**POOLS, "table": i32(3, 5)}
CALLS: dict[Callable[..., Any], dict[str, Any]] = {
    tree_attention: {**CACHE, "q": f32(3, 4, 64), "length": i32(3)},
    paged_prefill: {**CACHE, "q": f32(3, 7, 4, 64), "start": i32(3)},
    verify_attention: {
        **CACHE,
        "q": f32(3, 7, 4, 64),
        "k": f32(3, 7, 2, 64),
        "v": f32(3, 7, 2, 64),
        "seen": jax.ShapeDtypeStruct((3, 7, 7), jnp.bool_),
        "length": i32(3),
    },
    append_kv: {
        **POOLS,
        "k": f32(3, 7, 2, 64),
        "v": f32(3, 7, 2, 64),
        "block": i32(3, 7),
        "offset": i32(3, 7),
    },
    rope_append: {
        **POOLS,
        "qkv": f32(3, 7, 8 * 64),
        "rope": (f32(3, 7, 32), f32(3, 7, 32)),
        "block": i32(3, 7),
        "offset": i32(3, 7),
        "q_norm": f32(64),
        "k_norm": f32(64),
    },
    copy_blocks: {
        "k_pool": POOLS["k_pool"],
        "v_pool": POOLS["v_pool"],
        "source": i32(3),
        "destination": i32(3),
    },
}
"""Arguments that each kernel takes; arrays are shapes, so that calls are traced and never run."""


def trace(kernel: Callable[..., Any], **changes: Any) -> None:
    """Traces a call with some of its arguments changed."""
    arguments = CALLS[kernel] | changes
    arrays = {name: value for name, value in arguments.items() if name not in STATIC}
    static = {name: value for name, value in arguments.items() if name in STATIC}
    jax.eval_shape(lambda arrays: kernel(**arrays, **static), arrays)


STATIC = {"layer", "window", "softcap", "policy"}

ATTENTION = [tree_attention, paged_prefill, verify_attention]


@pytest.mark.parametrize("kernel", CALLS)
def test_the_unchanged_calls_are_taken(kernel: Callable[..., Any]) -> None:
    trace(kernel)


@pytest.mark.parametrize("kernel", CALLS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"k_pool": f32(9, 2, 16, 64)}, r"k_pool has shape \(9, 2, 16, 64\), not \[layers, blo"),
        ({"v_pool": f32(2, 8, 2, 16, 64)}, r"v_pool is float32\[2, 8, 2, 16, 64\], but k_pool is"),
    ],
)
def test_pools_that_differ(
    kernel: Callable[..., Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trace(kernel, **change)


@pytest.mark.parametrize("layer", [-1, 2])
@pytest.mark.parametrize("kernel", [k for k in CALLS if k is not copy_blocks])
def test_a_layer_that_the_pools_lack(kernel: Callable[..., Any], layer: int) -> None:
    with pytest.raises(ValueError, match=f"layer is {layer}, but the pools have 2 layers"):
        trace(kernel, layer=layer)


@pytest.mark.parametrize("layer", [jnp.zeros(1, jnp.int32), jnp.float32(1)])
@pytest.mark.parametrize("kernel", [k for k in CALLS if k is not copy_blocks])
def test_a_layer_that_is_no_number(kernel: Callable[..., Any], layer: jax.Array) -> None:
    with pytest.raises(ValueError, match=r"layer is \w+\[.*\], not an integer scalar"):
        trace(kernel, layer=layer)


@pytest.mark.parametrize("kernel", ATTENTION)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": f32(4, 64)}, r"q has shape \(4, 64\), not \["),
        ({"table": i32(4, 5)}, r"table has shape \(4, 5\), not \(3, max_blocks\)"),
        ({"table": f32(3, 5)}, "table has dtype float32, not an integer one"),
    ],
)
def test_attention_of_other_shapes(
    kernel: Callable[..., Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trace(kernel, **change)


@pytest.mark.parametrize(
    ("kernel", "change", "message"),
    [
        (tree_attention, {"q": f32(3, 4, 32)}, "q has head_dim 32, but the pools have 64"),
        (tree_attention, {"q": f32(3, 5, 64)}, "q has 5 heads, not a multiple of 2 kv heads"),
        (tree_attention, {"length": i32(4)}, r"length has shape \(4,\), not \(3,\)"),
        (tree_attention, {"length": f32(3)}, "length has dtype float32"),
        (tree_attention, {"window": 0}, "window is 0; it must be at least 1"),
        (tree_attention, {"softcap": -1.0}, "softcap is -1.0; it must be positive"),
        (
            tree_attention,
            {"softcap": float("inf")},
            "softcap is inf; it must be positive and finite",
        ),
        (tree_attention, {"q": i32(3, 4, 64)}, "q has dtype int32, not a floating-point one"),
        (paged_prefill, {"q": f32(3, 7, 5, 64)}, "q has 5 heads, not a multiple of 2 kv heads"),
        (paged_prefill, {"q": i32(3, 7, 4, 64)}, "q has dtype int32, not a floating-point one"),
        (paged_prefill, {"start": i32(2)}, r"start has shape \(2,\), not \(3,\)"),
        (paged_prefill, {"window": -3}, "window is -3; it must be at least 1"),
        (verify_attention, {"q": f32(3, 65, 4, 64)}, "q has 65 draft nodes a branch; at most 64"),
        (verify_attention, {"q": i32(3, 7, 4, 64)}, "q has dtype int32, not a floating-point one"),
        (verify_attention, {"k": f32(3, 7, 1, 64)}, r"k has shape \(3, 7, 1, 64\), not"),
        (verify_attention, {"seen": i32(3, 7, 6)}, r"seen has shape \(3, 7, 6\), not \(3, 7, 7\)"),
        (append_kv, {"v": f32(3, 7, 2, 32)}, r"v \(3, 7, 2, 32\).* do not fit block \(3, 7\)"),
        (append_kv, {"offset": i32(3)}, r"offset \(3,\) do not fit block \(3, 7\)"),
        (rope_append, {"qkv": f32(3, 7, 500)}, r"qkv has shape \(3, 7, 500\), not \[lanes"),
        (rope_append, {"qkv": f32(3, 7, 4 * 64)}, r"qkv has shape .* \(heads \+ 2 \* 2\) \* 64\]"),
        (rope_append, {"block": i32(3, 6)}, r"block has shape \(3, 6\), not \(3, 7\)"),
        (rope_append, {"rope": (f32(3, 7, 32), f32(3, 7, 64))}, "sines has shape"),
        (rope_append, {"q_norm": None}, "one is given without the other"),
        (rope_append, {"k_norm": f32(32)}, r"k_norm has shape \(32,\), not \(64,\)"),
        (copy_blocks, {"destination": i32(2)}, r"source \(3,\) and destination \(2,\) are not"),
    ],
)
def test_arguments_that_do_not_fit(
    kernel: Callable[..., Any], change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trace(kernel, **change)


@pytest.mark.parametrize(
    ("table", "length", "message"),
    [
        (i32(3, 5), i32(4), r"length has shape \(4,\), not \(3,\)"),
        (i32(5), i32(5), r"table has shape \(5,\), not \(5, max_blocks\)"),
        (i32(3, 5), f32(3), "length has dtype float32, not an integer one"),
    ],
)
def test_a_plan_of_other_shapes(table: Any, length: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_plan(table, length, POOLS["k_pool"], 4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"implementation": "cuda"}, r"is 'cuda', which is not one of \('triton', 'xla'\)"),
        ({"prefill_chunk": 0}, "prefill_chunk is 0; it must be at least 1, or None"),
    ],
)
def test_a_policy_that_can_not_be(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KernelPolicy(**fields)


@pytest.mark.parametrize("kernel", [k for k in CALLS if k is not append_kv])
def test_triton_is_refused_where_it_cannot_run(kernel: Callable[..., Any]) -> None:
    """Not installed at all, or without jax-triton; nothing falls back silently."""
    reason = "Triton is not installed|needs a CUDA device and jax-triton"
    with pytest.raises(UnsupportedError, match=rf"({reason}).*implementation='xla'\) runs"):
        trace(kernel, policy=KernelPolicy("triton"))


def test_the_platform_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_implementation(KernelPolicy()) == "triton"
    assert choose_implementation(KernelPolicy("xla")) == "xla"
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    with pytest.raises(UnsupportedError, match="no kernels for platform 'tpu': they exist for"):
        choose_implementation(KernelPolicy())


@pytest.mark.parametrize(
    ("platform", "lanes", "expected"),
    [("cpu", 1, 512), ("cpu", 100, 512), ("gpu", 1, 4096), ("gpu", 4, 1024), ("gpu", 100, 512)],
)
def test_the_prefill_chunk_is_the_policys_or_the_platforms(
    monkeypatch: pytest.MonkeyPatch, platform: str, lanes: int, expected: int
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert prefill_chunk(KernelPolicy(), lanes) == expected
    assert prefill_chunk(KernelPolicy("xla"), lanes) == expected
    assert prefill_chunk(KernelPolicy(prefill_chunk=7), lanes) == 7
