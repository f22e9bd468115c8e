"""Pytrees told in one line."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import pytest

from dendrite_jax.kernels.describe import describe
from dendrite_jax.kernels.policy import KernelPolicy


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Counters:
    a: jax.Array
    b: jax.Array
    c: jax.Array
    d: jax.Array


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (jnp.zeros((2, 3), jnp.bfloat16), "bf16[2,3]"),
        (jax.ShapeDtypeStruct((), jnp.uint32), "u32[]"),
        (jnp.zeros(4, bool), "bool[4]"),
        (Pair(jnp.zeros(1), None), "Pair(first=f32[1])"),
        (Pair(0.5, "x"), "Pair(first=0.5, second=x)"),
        ({"k": jnp.zeros(1, jnp.int8)}, "{k=i8[1]}"),
        ([jnp.zeros(1), jnp.zeros(1), jnp.zeros(2)], "(2 × f32[1], f32[2])"),
        (Counters(*jnp.zeros((4, 2))), "Counters(4 × f32[2])"),
        (KernelPolicy("xla"), "KernelPolicy(implementation=xla)"),
    ],
)
def test_a_line_tells_dtypes_and_shapes(value: object, line: str) -> None:
    assert describe(value) == line
