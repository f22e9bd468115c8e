"""Looking into traced programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jax.extend.core import jaxprs_in_params


def loops_of(jaxpr: Any) -> Iterator[Any]:
    """The loops of a program, those inside others too."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("while", "scan"):
            yield equation
        for inner in jaxprs_in_params(equation.params):
            yield from loops_of(inner)
