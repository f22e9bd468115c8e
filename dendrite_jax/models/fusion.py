"""Which neighbours of a layer run as one kernel, and which weight is prefetched meanwhile.

A layer reads as `x + attention(norm(x))`, then `x + mlp(norm(x))`. What runs is, of a sub-layer, a
product that takes the norm on its way, and one that is added to the residual stream together with
the norm that follows. So a norm and an update of the stream are values that say what to compute,
and the product or the sum that takes one computes it. `arrange` puts a layer's products in order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
from flax import struct
from jax import Array

from dendrite_jax.kernels.linear import (
    Weight,
    linear,
    residual_linear,
    rms_norm,
    runs_row_kernel,
)
from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.models.config import LayerSpec


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Norm:
    """An RMS norm."""

    weight: Array  # [hidden]
    eps: float = field(metadata={"static": True})


class Normed(NamedTuple):
    """The norm of the residual stream, which the product that reads it may take on its way."""

    x: Array  # [rows, hidden]
    norm: Norm
    made: Array | None  # [rows, hidden], the norm of x where it is there already

    def array(self) -> Array:
        """The norm itself [rows, hidden]."""
        return rms_norm(self.x, self.norm.weight, self.norm.eps) if self.made is None else self.made


class Stream(struct.PyTreeNode):
    """The residual stream, with its next norm unless that is left to the product that reads it."""

    x: Array  # [rows, hidden]
    normed: Array | None  # [rows, hidden]

    @classmethod
    def start(cls, x: Array, norm: Norm, policy: KernelPolicy) -> Stream:
        """The stream of embeddings [rows, hidden] before the layer that begins with `norm`."""
        on_the_way = runs_row_kernel(x.shape[0], policy)
        return cls(x, None if on_the_way else rms_norm(x, norm.weight, norm.eps))

    def norm(self, norm: Norm) -> Normed:
        """The norm of the stream; `norm` is the one that the last update was told of."""
        return Normed(self.x, norm, self.normed)

    def __add__(self, update: Update) -> Stream:
        """One product, with the sum and the norm after it."""
        last = update.product
        x, normed = residual_linear(
            update.x,
            self.x,
            last.weight,
            bias=last.bias,
            next_norm=last.next_norm.weight,
            eps=last.next_norm.eps,
            prefetch=last.ahead,
            policy=last.policy,
        )
        return Stream(x, normed)


@dataclass(frozen=True)
class Linear:
    """A linear layer that begins a sub-layer."""

    weight: Weight
    bias: Array | None
    ahead: Weight | None
    """The next product's weight, whose first bytes are prefetched as this one ends."""
    policy: KernelPolicy

    def __call__(self, x: Normed, *, swiglu: bool = False) -> Array:
        """[rows, outputs]: the product, with the norm before it if that is not made."""
        return linear(
            x.x if x.made is None else x.made,
            self.weight,
            norm=x.norm.weight if x.made is None else None,
            eps=x.norm.eps,
            bias=self.bias,
            swiglu=swiglu,
            prefetch=self.ahead,
            policy=self.policy,
        )


@dataclass(frozen=True)
class LastLinear:
    """A linear layer that ends a sub-layer: its product waits for the sum."""

    weight: Weight
    bias: Array | None
    ahead: Weight | None
    next_norm: Norm
    """What the stream goes through after the sum."""
    policy: KernelPolicy

    def __call__(self, x: Array) -> Update:
        return Update(x, self)


class Update(NamedTuple):
    """A product that is yet to be added to the residual stream."""

    x: Array  # [rows, depth]
    product: LastLinear


class Following(struct.PyTreeNode):
    """What comes after a layer: the next layer's first norm and product, or the model's last."""

    norm: Norm
    weight: Weight | None  # None where nothing would prefetch it


class Arranged(NamedTuple):
    """The norms and products of a layer in the order in which they run, and their policy."""

    attention_norm: Norm
    qkv: Linear
    q_norm: Array | None  # [head_dim], of each query head before the rotation
    k_norm: Array | None
    o: LastLinear
    mlp_norm: Norm
    gate_up: Linear
    down: LastLinear
    policy: KernelPolicy


def arrange(
    spec: LayerSpec, weights: dict[str, Any], following: Following, policy: KernelPolicy
) -> Arranged:
    """Each product of a layer with the weight that is read after it, and the norm after a sum."""
    attention_norm = Norm(weights["input_norm"], spec.norm_eps)
    mlp_norm = Norm(weights["post_norm"], spec.norm_eps)
    qkv, o, gate_up, down = (weights[name] for name in ("qkv", "o", "gate_up", "down"))
    bias = {name: weights.get(f"{name}_bias") for name in ("qkv", "o", "gate_up", "down")}
    return Arranged(
        attention_norm,
        Linear(qkv, bias["qkv"], o, policy),
        weights.get("q_norm"),
        weights.get("k_norm"),
        LastLinear(o, bias["o"], gate_up, mlp_norm, policy),
        mlp_norm,
        Linear(gate_up, bias["gate_up"], down, policy),
        LastLinear(down, bias["down"], following.weight, following.norm, policy),
        policy,
    )


def followings(
    layers: tuple[LayerSpec, ...],
    weights: tuple[dict[str, Any], ...],
    final_norm: Norm,
    unembedding: Weight,
    rows: int,
    policy: KernelPolicy,
) -> tuple[Following, ...]:
    """What comes after each layer, for so many rows of the stream."""
    norms = [Norm(w["input_norm"], spec.norm_eps) for spec, w in zip(layers, weights, strict=True)]
    first = [w["qkv"] for w in weights]
    # Where no product prefetches, layers that differ in this alone are one trace.
    ahead = [*first[1:], unembedding] if runs_row_kernel(rows, policy) else [None] * len(first)
    return tuple(map(Following, [*norms[1:], final_norm], ahead))
