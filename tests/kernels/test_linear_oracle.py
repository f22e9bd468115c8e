"""The products by the interpreted Triton kernels."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from dendrite_jax.kernels.dispatch import UnsupportedError
from dendrite_jax.kernels.linear import Dense, gpu, linear, residual_linear
from dendrite_jax.kernels.linear.shapes import RowBlocks, TileBlocks, depth_shares
from dendrite_jax.kernels.policy import KernelPolicy
from kernels.dense import BOUNDS
from kernels.interpreter import interpreted  # noqa: F401
from kernels.linear_suite import (
    LinearSuite,
    ResidualLinearSuite,
    assert_close,
    operands,
    oracle,
    residual_operands,
    residual_oracle,
)
from kernels.test_linear import Scaled


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several programs and steps a product, the last of each partly filled."""
    blocks = RowBlocks(rows=4, chunk=64, unroll=1)
    monkeypatch.setattr(gpu, "row_blocks", lambda depth: blocks)
    tiles = TileBlocks(rows=16, columns=32)
    monkeypatch.setattr(gpu, "tile_blocks", lambda *shape: tiles)


@pytest.mark.usefixtures("small_tiles")
class TestTriton(LinearSuite):
    implementation = "triton"


@pytest.mark.usefixtures("small_tiles")
class TestTritonResidual(ResidualLinearSuite):
    implementation = "triton"


OPTIONS = {"norm": None, "eps": 1e-5, "bias": None, "swiglu": False}


@pytest.mark.parametrize("fused", [False, True])
def test_shares_of_the_depth_are_summed(fused: bool) -> None:
    arguments = operands(3, 40, fused=fused)
    tiles = TileBlocks(rows=16, columns=32, splits=3)
    got = gpu.linear(**OPTIONS | arguments, out_dtype=jnp.dtype("float32"), blocks=tiles)
    assert_close(got, oracle(**arguments), BOUNDS["float32"])


def test_shares_of_the_depth_are_added_to_the_residual() -> None:
    arguments = residual_operands(3, 40)
    tiles = TileBlocks(rows=16, columns=32, splits=3)
    y, normed = gpu.residual_linear(**arguments, blocks=tiles)
    want, want_normed = residual_oracle(**arguments)
    assert normed is not None
    assert_close(y, want, BOUNDS["float32"])
    assert_close(normed, want_normed, BOUNDS["float32"])


@pytest.mark.parametrize("depth", [256, 1024, 12288])
def test_tuned_row_blocks_cover_every_column(depth: int) -> None:
    arguments = operands(1, 8, depth=depth)
    got = linear(**arguments, policy=KernelPolicy("triton"))
    assert_close(got, oracle(**arguments), BOUNDS["float32"])


@pytest.mark.parametrize(("depth", "outputs"), [(96, 40), (1024, 96), (1280, 64)])
def test_tuned_tiles_cover_every_column(depth: int, outputs: int) -> None:
    arguments = operands(4, outputs, depth=depth)
    got = linear(**arguments, policy=KernelPolicy("triton"))
    assert_close(got, oracle(**arguments), BOUNDS["float32"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("rows", "depth", "shares"), [(129, 4096, 2), (129, 1024, 1), (128, 2048, 1)]
)
def test_shares_of_the_depth_of_many_rows(rows: int, depth: int, shares: int, dtype: str) -> None:
    """XLA's product in shares, added up by the kernel that takes the norm."""
    arguments = residual_operands(rows, 24, depth=depth, dtype=dtype)
    assert depth_shares(rows, 24, depth) == shares
    y, normed = residual_linear(**arguments, policy=KernelPolicy("triton"))
    want, want_normed = residual_oracle(**arguments)
    assert normed is not None
    assert y.dtype == normed.dtype == dtype
    assert_close(y, want, 2 * BOUNDS[dtype])  # two roundings
    assert_close(normed, want_normed, 2 * BOUNDS[dtype])


def test_refuses_a_weight_of_another_dtype() -> None:
    weight = Dense(jnp.ones((8, 96), "float8_e4m3fn"))
    with pytest.raises(UnsupportedError, match="weight dtype float8_e4m3fn: the kernel takes bf16"):
        linear(jnp.ones((1, 96)), weight, policy=KernelPolicy("triton"))


def test_refuses_a_format_without_loads() -> None:
    weight = Scaled(jnp.ones((8, 96), "int8"), jnp.ones(8))
    with pytest.raises(UnsupportedError, match="weight format Scaled: the kernel lacks its loads"):
        linear(jnp.ones((1, 96)), weight, policy=KernelPolicy("triton"))


def test_refuses_a_depth_that_tiles_do_not_divide() -> None:
    with pytest.raises(UnsupportedError, match="depth 100 is not a multiple of splits 1 x columns"):
        linear(**operands(2, 8, depth=100), policy=KernelPolicy("triton"))
