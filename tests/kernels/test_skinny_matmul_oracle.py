"""The skinny product: the XLA twin and the interpreted Triton kernels against float64."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.skinny_matmul import skinny_matmul
from dendrite_jax.kernels.skinny_matmul import triton as kernels
from kernels.interpreter import launch, poisoned

EPS = 1e-3
DEPTH = 96


def oracle(x, weight, norm, bias, swiglu, residual):
    """The same steps in float64."""
    x = x.astype(np.float64)
    if norm is not None:
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * norm
    y = x @ weight.astype(np.float64).T
    if bias is not None:
        y = y + bias
    if swiglu:
        gate, up = np.split(y, 2, axis=-1)
        y = gate / (1 + np.exp(-gate)) * up
    return y if residual is None else y + residual


def operands(rows, outputs, swiglu, fused, depth=DEPTH):
    """Random operands; `fused` adds norm, bias and residual."""
    rng = np.random.default_rng(rows * 1000 + outputs)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    heads = outputs * (2 if swiglu else 1)
    x, weight = draw(rows, depth), draw(heads, depth) * depth**-0.5
    if not fused:
        return x, weight, None, None, None
    return x, weight, draw(depth), draw(heads), draw(rows, outputs)


def relative_error(got, want):
    return np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want)


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("rows", [1, 5])
def test_xla_twin_matches_float64(rows, fused, swiglu):
    x, weight, norm, bias, residual = operands(rows, 24, swiglu, fused)
    got = skinny_matmul(
        x,
        weight,
        norm=norm,
        eps=EPS,
        bias=bias,
        swiglu=swiglu,
        residual=residual,
        implementation="xla",
    )
    assert relative_error(got, oracle(x, weight, norm, bias, swiglu, residual)) < 1e-5


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("outputs", "block", "chunk"), [(23, 4, 64), (24, 8, 128)])
def test_row_kernel_matches_float64(outputs, block, chunk, fused, swiglu):
    x, weight, norm, bias, residual = operands(1, outputs, swiglu, fused)
    out = poisoned((1, outputs), "float32")
    launch(
        kernels.row_kernel,
        (-(-outputs // block),),
        x,
        weight,
        norm,
        bias,
        residual,
        None,
        out,
        eps=EPS,
        N=outputs,
        K=DEPTH,
        SWIGLU=swiglu,
        ROWS=block,
        CHUNK=chunk,
        UNROLL=1,
        AHEAD_GROUPS=0,
    )
    assert relative_error(out, oracle(x, weight, norm, bias, swiglu, residual)) < 1e-5


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("rows", "outputs"), [(5, 24), (19, 40)])
def test_tile_kernel_matches_float64(rows, outputs, fused, swiglu):
    x, weight, _, bias, residual = operands(rows, outputs, swiglu, fused)
    out = poisoned((1, rows, outputs), "float32")
    launch(
        kernels.tile_kernel,
        (-(-rows // 16), -(-outputs // 16), 1),
        x,
        weight,
        bias,
        residual,
        out,
        M=rows,
        N=outputs,
        K=DEPTH,
        SWIGLU=swiglu,
        SPLITS=1,
        BLOCK_M=16,
        BLOCK_N=16,
        BLOCK_K=32,
    )
    assert relative_error(out[0], oracle(x, weight, None, bias, swiglu, residual)) < 1e-5


def test_tile_kernel_splits_sum_to_the_product():
    x, weight, *_ = operands(3, 40, False, False)
    out = poisoned((3, 3, 40), "float32")
    launch(
        kernels.tile_kernel,
        (1, 3, 3),
        x,
        weight,
        None,
        None,
        out,
        M=3,
        N=40,
        K=DEPTH,
        SWIGLU=False,
        SPLITS=3,
        BLOCK_M=16,
        BLOCK_N=16,
        BLOCK_K=32,
    )
    want = oracle(x, weight, None, None, False, None)
    assert relative_error(out.numpy().sum(0), want) < 1e-5
    assert relative_error(out[0], want) > 0.1


def test_bfloat16_keeps_float32_sums():
    x, weight, norm, _, residual = operands(1, 32, False, True, depth=1024)
    x, weight = jnp.asarray(x, jnp.bfloat16), jnp.asarray(weight, jnp.bfloat16)
    out = poisoned((1, 32), "float32")
    launch(
        kernels.row_kernel,
        (8,),
        x,
        weight,
        norm,
        None,
        residual,
        None,
        out,
        eps=EPS,
        N=32,
        K=1024,
        SWIGLU=False,
        ROWS=4,
        CHUNK=256,
        UNROLL=1,
        AHEAD_GROUPS=0,
    )
    wide = np.asarray(x, np.float32), np.asarray(weight, np.float32)
    assert relative_error(out, oracle(*wide, norm, None, False, residual)) < 1e-5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.zeros((8, 95), np.float32)}, r"x \(2, 96\) and weight \(8, 95\)"),
        ({"weight": np.zeros((7, 96), np.float32), "swiglu": True}, "7 rows"),
        ({"norm": np.zeros(95, np.float32)}, r"norm has shape \(95,\), not \(96,\)"),
        ({"bias": np.zeros(7, np.float32)}, r"bias has shape \(7,\), not \(8,\)"),
        ({"residual": np.zeros((2, 7), np.float32)}, "residual"),
        ({"implementation": "cuda"}, "'cuda' is not one of"),
    ],
)
def test_refuses_shapes_that_do_not_fit(change, message):
    arguments = {
        "x": np.zeros((2, DEPTH), np.float32),
        "weight": np.zeros((8, DEPTH), np.float32),
        **change,
    }
    with pytest.raises(ValueError, match=message):
        skinny_matmul(arguments.pop("x"), arguments.pop("weight"), **arguments)
