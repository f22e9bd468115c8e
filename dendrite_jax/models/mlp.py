"""The multi-layer perceptron of a layer."""

from __future__ import annotations

from dendrite_jax.models.fusion import Arranged, Normed, Update


def mlp(layer: Arranged, x: Normed) -> Update:
    """`down(silu(gate(x)) * up(x))` of rows [rows, hidden]."""
    return layer.down(layer.gate_up(x, swiglu=True))
