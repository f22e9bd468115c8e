"""The skinny products by plain XLA, and what they refuse."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.kernels.skinny_matmul import residual_matmul, skinny_matmul
from kernels.skinny_suite import (
    DEPTH,
    ResidualMatmulSuite,
    SkinnyMatmulSuite,
    operands,
    residual_operands,
)


class TestXla(SkinnyMatmulSuite):
    implementation = "xla"


class TestXlaResidual(ResidualMatmulSuite):
    implementation = "xla"


def test_a_prefetch_changes_nothing() -> None:
    arguments = operands(2, 24)
    hinted = skinny_matmul(**arguments, prefetch=jnp.ones((8, 8)), policy=KernelPolicy("xla"))
    assert jnp.array_equal(hinted, skinny_matmul(**arguments, policy=KernelPolicy("xla")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.zeros((8, 95), np.float32)}, r"x \(2, 96\) and weight \(8, 95\)"),
        ({"weight": np.zeros((7, 96), np.float32), "swiglu": True}, "7 rows"),
        ({"norm": np.zeros(95, np.float32)}, r"norm has shape \(95,\), not \(96,\)"),
        ({"bias": np.zeros(7, np.float32)}, r"bias has shape \(7,\), not \(8,\)"),
    ],
)
def test_refuses_shapes_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "x": np.zeros((2, DEPTH), np.float32),
        "weight": np.zeros((8, DEPTH), np.float32),
    }
    with pytest.raises(ValueError, match=message):
        skinny_matmul(**arguments | change)


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
    with pytest.raises(ValueError, match=message):
        residual_matmul(**residual_operands(2, 8) | {name: jnp.zeros(7)})
