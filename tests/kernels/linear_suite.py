"""What the products must do, whatever implements them; subclasses name an implementation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.linear import MAX_ROWS, Dense, linear, residual_linear
from dendrite_jax.kernels.policy import Implementation, KernelPolicy
from kernels.dense import BOUNDS, wide

EPS = 1e-3
DEPTH = 96


def drawer(seed: int, dtype: str) -> Callable[..., jax.Array]:
    """A function of a shape that gives normal numbers, times `scale`."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, scale: float = 1.0) -> jax.Array:
        return jnp.asarray(scale * rng.normal(size=shape), dtype)

    return draw


def operands(
    rows: int,
    outputs: int,
    *,
    swiglu: bool = False,
    fused: bool = False,
    dtype: str = "float32",
    depth: int = DEPTH,
) -> dict[str, Any]:
    """Random arguments; `fused` adds norm and bias."""
    draw = drawer(rows * 1000 + outputs, dtype)
    height = outputs * (2 if swiglu else 1)
    arguments: dict[str, Any] = {
        "x": draw(rows, depth),
        "weight": Dense(draw(height, depth, scale=depth**-0.5)),
        "swiglu": swiglu,
        "eps": EPS,
    }
    if fused:
        arguments |= {"norm": draw(depth), "bias": draw(height)}
    return arguments


def residual_operands(
    rows: int, outputs: int, *, bias: bool = True, dtype: str = "float32", depth: int = DEPTH
) -> dict[str, Any]:
    """Random arguments of the product that is added to a residual."""
    draw = drawer(rows * 1000 + outputs, dtype)
    return {
        "x": draw(rows, depth),
        "residual": draw(rows, outputs),
        "weight": Dense(draw(outputs, depth, scale=depth**-0.5)),
        "next_norm": draw(outputs),
        "eps": EPS,
        "bias": draw(outputs) if bias else None,
    }


def oracle(
    x: Any,
    weight: Any,
    swiglu: bool,
    eps: float,
    norm: Any = None,
    bias: Any = None,
) -> np.ndarray:
    """The same steps in float64."""
    x = wide(x)
    if norm is not None:
        x = norm_oracle(x, norm, eps)
    y = x @ wide(weight.values).T
    if bias is not None:
        y = y + wide(bias)
    if swiglu:
        gate, up = np.split(y, 2, axis=-1)
        y = gate / (1 + np.exp(-gate)) * up
    return y


def norm_oracle(x: np.ndarray, norm: Any, eps: float) -> np.ndarray:
    """The RMS norm in float64."""
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * wide(norm)


def residual_oracle(
    x: Any, residual: Any, weight: Any, next_norm: Any, eps: float, bias: Any
) -> tuple[np.ndarray, np.ndarray]:
    """The sum and its norm in float64."""
    y = wide(residual) + wide(x) @ wide(weight.values).T
    if bias is not None:
        y = y + wide(bias)
    return y, norm_oracle(y, next_norm, eps)


def assert_close(got: jax.Array, want: np.ndarray, bound: float) -> None:
    """Compares by the norm of the difference."""
    error = float(np.linalg.norm(wide(got) - want)) / float(np.linalg.norm(want))
    assert error <= bound


class LinearSuite:
    """Against float64."""

    implementation: ClassVar[Implementation]

    def multiply(self, x: Any, weight: Any, **options: Any) -> jax.Array:
        return linear(x, weight, policy=KernelPolicy(self.implementation), **options)

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

    @pytest.mark.parametrize("rows", [1, 5])
    def test_a_narrow_weight_rounds_no_wide_rows(self, rows: int) -> None:
        arguments = operands(rows, 24, fused=True)
        arguments["weight"] = Dense(arguments["weight"].values.astype("bfloat16"))
        got = self.multiply(**arguments)
        assert got.dtype == jnp.float32
        assert_close(got, oracle(**arguments), BOUNDS["float32"])

    def test_more_rows_than_the_kernels_take(self) -> None:
        arguments = operands(MAX_ROWS + 1, 24, fused=True, swiglu=True)
        assert_close(self.multiply(**arguments), oracle(**arguments), BOUNDS["float32"])

    @pytest.mark.parametrize("problems", [3, MAX_ROWS])
    def test_vmap_over_rows(self, problems: int) -> None:
        """Few problems are one product of few rows, many one of more than the kernels take."""
        arguments = operands(2 * problems, 24, fused=True)
        want = oracle(**arguments)
        x = arguments.pop("x").reshape(problems, 2, -1)
        got = jax.vmap(lambda x: self.multiply(x, **arguments))(x)
        assert_close(got.reshape(want.shape), want, BOUNDS["float32"])

    def test_vmap_over_weights(self) -> None:
        arguments = operands(2, 24, fused=True)
        x, weight = arguments.pop("x"), arguments.pop("weight")
        weights = jnp.stack([weight.values, 2 * weight.values])
        got = jax.vmap(lambda weight: self.multiply(x, weight, **arguments))(Dense(weights))
        for index in range(2):
            want = oracle(x, Dense(weights[index]), **arguments)
            assert_close(got[index], want, BOUNDS["float32"])


class ResidualLinearSuite:
    """Against float64: the sum, and the norm unless it is left to the next product."""

    implementation: ClassVar[Implementation]

    def multiply(self, x: Any, residual: Any, weight: Any, **options: Any) -> Any:
        return residual_linear(
            x, residual, weight, policy=KernelPolicy(self.implementation), **options
        )

    def check(self, arguments: dict[str, Any], bound: float) -> None:
        y, normed = self.multiply(**arguments)
        want, want_normed = residual_oracle(**arguments)
        assert y.dtype == arguments["residual"].dtype
        assert_close(y, want, bound)
        if arguments["x"].shape[0] > 1 or self.implementation == "xla":
            assert normed.dtype == y.dtype
            assert_close(normed, want_normed, bound)
        else:
            assert normed is None

    @pytest.mark.parametrize("bias", [False, True])
    @pytest.mark.parametrize(("rows", "outputs"), [(1, 24), (5, 23), (19, 40), (MAX_ROWS + 1, 24)])
    def test_matches_float64(self, rows: int, outputs: int, bias: bool) -> None:
        self.check(residual_operands(rows, outputs, bias=bias), BOUNDS["float32"])

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    @pytest.mark.parametrize("rows", [1, 5])
    def test_half_precision(self, rows: int, dtype: str) -> None:
        self.check(residual_operands(rows, 24, dtype=dtype), 2 * BOUNDS[dtype])  # two roundings

    @pytest.mark.parametrize("problems", [3, MAX_ROWS])
    def test_vmap_over_rows(self, problems: int) -> None:
        arguments = residual_operands(2 * problems, 24)
        want = residual_oracle(**arguments)
        rows = [arguments.pop(name).reshape(problems, 2, -1) for name in ("x", "residual")]
        got = jax.vmap(lambda x, residual: self.multiply(x, residual, **arguments))(*rows)
        for ours, theirs in zip(got, want, strict=True):
            assert_close(ours.reshape(theirs.shape), theirs, BOUNDS["float32"])

    def test_vmap_over_single_rows(self) -> None:
        """Each problem leaves the norm of its row to the next product, or none does."""
        arguments = residual_operands(3, 24)
        want, want_normed = residual_oracle(**arguments)
        rows = [arguments.pop(name)[:, None] for name in ("x", "residual")]
        y, normed = jax.vmap(lambda x, residual: self.multiply(x, residual, **arguments))(*rows)
        assert_close(y[:, 0], want, BOUNDS["float32"])
        assert (normed is None) == (self.implementation == "triton")
        if normed is not None:
            assert_close(normed[:, 0], want_normed, BOUNDS["float32"])

    def test_vmap_over_weights(self) -> None:
        arguments = residual_operands(2, 24)
        weight = arguments["weight"].values
        weights = jnp.stack([weight, 2 * weight])
        got = jax.vmap(lambda weight: self.multiply(**arguments | {"weight": weight}))(
            Dense(weights)
        )
        for index in range(2):
            want = residual_oracle(**arguments | {"weight": Dense(weights[index])})
            for ours, theirs in zip(got, want, strict=True):
                assert_close(ours[index], theirs, BOUNDS["float32"])

    def test_nested_vmap(self) -> None:
        """Rows differ along both axes, the residual along the outer one only."""
        arguments = residual_operands(12, 24)
        x = arguments.pop("x").reshape(3, 2, 2, -1)
        residual = arguments.pop("residual")[:6].reshape(3, 2, -1)

        def multiply(x: jax.Array, residual: jax.Array) -> Any:
            return self.multiply(x, residual, **arguments)

        got = jax.vmap(jax.vmap(multiply, (0, None)))(x, residual)
        for i in range(3):
            for j in range(2):
                want = residual_oracle(x[i, j], residual[i], **arguments)
                for ours, theirs in zip(got, want, strict=True):
                    assert_close(ours[i, j], theirs, BOUNDS["float32"])
