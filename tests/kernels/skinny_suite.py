"""What the skinny product must do, whatever implements it; subclasses name an implementation."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.skinny_matmul import MAX_ROWS, skinny_matmul
from kernels.dense import BOUNDS, wide

EPS = 1e-3
DEPTH = 96


def operands(
    rows: int,
    outputs: int,
    *,
    swiglu: bool = False,
    fused: bool = False,
    dtype: str = "float32",
    depth: int = DEPTH,
) -> dict[str, Any]:
    """Random arguments; `fused` adds norm, bias and residual."""
    rng = np.random.default_rng(rows * 1000 + outputs)

    def draw(*shape: int, scale: float = 1.0) -> jax.Array:
        return jnp.asarray(scale * rng.normal(size=shape), dtype)

    height = outputs * (2 if swiglu else 1)
    arguments: dict[str, Any] = {
        "x": draw(rows, depth),
        "weight": draw(height, depth, scale=depth**-0.5),
        "swiglu": swiglu,
        "eps": EPS,
    }
    if fused:
        arguments |= {"norm": draw(depth), "bias": draw(height), "residual": draw(rows, outputs)}
    return arguments


def oracle(
    x: Any,
    weight: Any,
    swiglu: bool,
    eps: float,
    norm: Any = None,
    bias: Any = None,
    residual: Any = None,
) -> np.ndarray:
    """The same steps in float64."""
    x = wide(x)
    if norm is not None:
        x = x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * wide(norm)
    y = x @ wide(weight).T
    if bias is not None:
        y = y + wide(bias)
    if swiglu:
        gate, up = np.split(y, 2, axis=-1)
        y = gate / (1 + np.exp(-gate)) * up
    return y if residual is None else y + wide(residual)


def assert_close(got: jax.Array, want: np.ndarray, bound: float) -> None:
    """Compares by the norm of the difference."""
    error = float(np.linalg.norm(wide(got) - want)) / float(np.linalg.norm(want))
    assert error <= bound


class SkinnyMatmulSuite:
    """Against float64."""

    implementation: ClassVar[str]

    def multiply(self, x: Any, weight: Any, **options: Any) -> jax.Array:
        return skinny_matmul(x, weight, implementation=self.implementation, **options)

    @pytest.mark.parametrize("swiglu", [False, True])
    @pytest.mark.parametrize("fused", [False, True])
    @pytest.mark.parametrize(("rows", "outputs"), [(1, 23), (1, 24), (5, 24), (19, 40)])
    def test_matches_float64(self, rows: int, outputs: int, fused: bool, swiglu: bool) -> None:
        arguments = operands(rows, outputs, fused=fused, swiglu=swiglu)
        assert_close(self.multiply(**arguments), oracle(**arguments), BOUNDS["float32"])

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("rows", [1, 5])
    def test_half_precision_keeps_float32_sums(self, rows: int, dtype: str) -> None:
        arguments = operands(rows, 32, dtype=dtype, depth=1024)
        got = self.multiply(**arguments, out_dtype=jnp.float32)
        assert got.dtype == jnp.float32
        assert_close(got, oracle(**arguments), BOUNDS["float32"])

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("rows", [1, 5])
    def test_half_precision_with_all_that_is_fused(self, rows: int, dtype: str) -> None:
        arguments = operands(rows, 24, fused=True, swiglu=True, dtype=dtype)
        got = self.multiply(**arguments)
        assert got.dtype == dtype
        assert_close(got, oracle(**arguments), 2 * BOUNDS[dtype])  # norm and product both round

    @pytest.mark.parametrize("problems", [3, MAX_ROWS])
    def test_vmap_over_rows(self, problems: int) -> None:
        """Few problems are one skinny product, many one that is not skinny."""
        arguments = operands(2 * problems, 24, fused=True)
        want = oracle(**arguments)
        x, residual = (arguments.pop(name).reshape(problems, 2, -1) for name in ("x", "residual"))
        got = jax.vmap(lambda x, residual: self.multiply(x, residual=residual, **arguments))(
            x, residual
        )
        assert_close(got.reshape(want.shape), want, BOUNDS["float32"])

    def test_vmap_over_weights(self) -> None:
        arguments = operands(2, 24, fused=True)
        x, weight = arguments.pop("x"), arguments.pop("weight")
        weights = jnp.stack([weight, 2 * weight])
        got = jax.vmap(lambda weight: self.multiply(x, weight, **arguments))(weights)
        for index in range(2):
            want = oracle(x, weights[index], **arguments)
            assert_close(got[index], want, BOUNDS["float32"])

    def test_nested_vmap(self) -> None:
        """Rows differ along both axes, the residual along the outer one only."""
        arguments = operands(12, 24, fused=True)
        x = arguments.pop("x").reshape(3, 2, 2, -1)
        residual = arguments.pop("residual")[:6].reshape(3, 2, -1)

        def multiply(x: jax.Array, residual: jax.Array) -> jax.Array:
            return self.multiply(x, residual=residual, **arguments)

        got = jax.vmap(jax.vmap(multiply, (0, None)))(x, residual)
        for i in range(3):
            for j in range(2):
                want = oracle(x[i, j], residual=residual[i], **arguments)
                assert_close(got[i, j], want, BOUNDS["float32"])
