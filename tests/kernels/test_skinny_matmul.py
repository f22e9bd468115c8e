"""The skinny product by plain XLA, and what it refuses."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.skinny_matmul import skinny_matmul
from kernels.skinny_suite import DEPTH, SkinnyMatmulSuite, operands


class TestXla(SkinnyMatmulSuite):
    implementation = "xla"


def test_a_prefetch_changes_nothing() -> None:
    arguments = operands(2, 24)
    hinted = skinny_matmul(**arguments, prefetch=jnp.ones((8, 8)), implementation="xla")
    assert jnp.array_equal(hinted, skinny_matmul(**arguments, implementation="xla"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": np.zeros((8, 95), np.float32)}, r"x \(2, 96\) and weight \(8, 95\)"),
        ({"weight": np.zeros((7, 96), np.float32), "swiglu": True}, "7 rows"),
        ({"norm": np.zeros(95, np.float32)}, r"norm has shape \(95,\), not \(96,\)"),
        ({"bias": np.zeros(7, np.float32)}, r"bias has shape \(7,\), not \(8,\)"),
        ({"residual": np.zeros((2, 7), np.float32)}, r"residual has shape \(2, 7\), not \(2, 8\)"),
        ({"implementation": "cuda"}, "'cuda' is not one of"),
    ],
)
def test_refuses_shapes_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "x": np.zeros((2, DEPTH), np.float32),
        "weight": np.zeros((8, DEPTH), np.float32),
    }
    with pytest.raises(ValueError, match=message):
        skinny_matmul(**arguments | change)
