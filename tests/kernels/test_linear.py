"""The products by plain XLA, and what they refuse."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

from dendrite_jax.kernels.linear import Dense, linear, residual_linear
from dendrite_jax.kernels.policy import KernelPolicy
from kernels.dense import BOUNDS
from kernels.linear_suite import (
    DEPTH,
    LinearSuite,
    ResidualLinearSuite,
    assert_close,
    operands,
    residual_operands,
    residual_oracle,
)


class TestXla(LinearSuite):
    implementation = "xla"


class TestXlaResidual(ResidualLinearSuite):
    implementation = "xla"


def test_a_prefetch_changes_nothing() -> None:
    arguments = operands(2, 24)
    hinted = linear(**arguments, prefetch=Dense(jnp.ones((8, 8))), policy=KernelPolicy("xla"))
    assert jnp.array_equal(hinted, linear(**arguments, policy=KernelPolicy("xla")))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Scaled:
    """A format as simple as can be: integers, and a scale for each row."""

    values: jax.Array  # i8[outputs, depth]
    scale: jax.Array  # f32[outputs]
    dtype = jnp.dtype("float32")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scale.nbytes

    def dequantize(self, dtype: DTypeLike) -> jax.Array:
        return (self.values * self.scale[:, None]).astype(dtype)


def test_a_product_takes_any_format() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-127, 128, (24, DEPTH), np.int8)
    weight = Scaled(jnp.asarray(values), jnp.asarray(rng.uniform(size=24), "float32"))
    dense = Dense(weight.dequantize("float32"))
    arguments = residual_operands(5, 24)
    got = jax.jit(partial(residual_linear, policy=KernelPolicy("xla")))(
        **arguments | {"weight": weight}
    )
    want = residual_oracle(**arguments | {"weight": dense})
    for ours, theirs in zip(got, want, strict=True):
        assert_close(ours, theirs, BOUNDS["float32"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": Dense(jnp.zeros((8, 95)))}, r"x \(2, 96\) and weight \(8, 95\)"),
        ({"weight": Dense(jnp.zeros((7, 96))), "swiglu": True}, "7 rows"),
        ({"norm": np.zeros(95, np.float32)}, r"norm has shape \(95,\), not \(96,\)"),
        ({"bias": np.zeros(7, np.float32)}, r"bias has shape \(7,\), not \(8,\)"),
    ],
)
def test_refuses_shapes_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "x": np.zeros((2, DEPTH), np.float32),
        "weight": Dense(jnp.zeros((8, DEPTH))),
    }
    with pytest.raises(ValueError, match=message):
        linear(**arguments | change)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("residual", r"residual has shape \(7,\), not \(2, 8\)"),
        ("next_norm", r"next_norm has shape \(7,\), not \(8,\)"),
        ("bias", r"bias has shape \(7,\), not \(8,\)"),
        ("weight", r"x \(2, 96\) and weight \(7,\)"),
    ],
)
def test_refuses_residuals_that_do_not_fit(name: str, message: str) -> None:
    wrong = Dense(jnp.zeros(7)) if name == "weight" else jnp.zeros(7)
    with pytest.raises(ValueError, match=message):
        residual_linear(**residual_operands(2, 8) | {name: wrong})
