"""The public calls of the skinny product."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from dendrite_jax.kernels.dispatch import choose_implementation
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy
from dendrite_jax.kernels.skinny_matmul import reference


def skinny_matmul(
    x: Array,
    weight: Array,
    *,
    norm: Array | None = None,
    eps: float = 1e-5,
    bias: Array | None = None,
    swiglu: bool = False,
    out_dtype: DTypeLike | None = None,
    prefetch: Array | None = None,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> Array:
    """`epilogue(rms_norm(x) @ weight.T)` for a few rows, in one pass over the weight.

    Sums are float32. The steps, in order: RMS norm of each row of x (if `norm`), the product, plus
    `bias`, `silu(gate) * up` of the two halves of the result (if `swiglu`). More than MAX_ROWS rows
    are XLA's product, whatever the implementation; float32 is then as precise as jax's
    `default_matmul_precision` says, by default TF32 on a GPU.

    Args:
      x: [rows, depth].
      weight: [outputs, depth], Hugging Face's layout; with `swiglu` [2 * outputs, depth], the gate
        rows first.
      norm: [depth], the weight of the RMS norm (Zhang & Sennrich 2019), or None for no norm.
      eps: added to the mean square inside the norm.
      bias: [outputs], or [2 * outputs] with `swiglu`.
      swiglu: whether the weight holds a gate and an up projection (Shazeer 2020).
      out_dtype: dtype of the result; x's when None.
      prefetch: what the next kernel will read; its first bytes are brought into the cache as this
        product ends. A hint, which only the kernel of one row takes.
      policy: which implementation runs.

    Returns:
      [rows, outputs].

    Raises:
      ValueError: shapes that do not fit together.
      UnsupportedError: the Triton kernel lacks the case.
    """
    _check_product(x, weight)
    if swiglu and weight.shape[0] % 2:
        raise ValueError(f"weight has {weight.shape[0]} rows, but swiglu needs an even number")
    _check_shapes(norm=(norm, (x.shape[1],)), bias=(bias, (weight.shape[0],)))
    out_dtype = x.dtype if out_dtype is None else out_dtype
    return _implementation(policy).skinny_matmul(
        x,
        weight,
        norm=norm,
        eps=eps,
        bias=bias,
        swiglu=swiglu,
        out_dtype=jnp.dtype(out_dtype),
        prefetch=prefetch,
    )


def residual_matmul(
    x: Array,
    residual: Array,
    weight: Array,
    *,
    next_norm: Array,
    eps: float = 1e-5,
    bias: Array | None = None,
    prefetch: Array | None = None,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> tuple[Array, Array | None]:
    """`y = residual + x @ weight.T + bias`, and the RMS norm that the next product starts with.

    Args:
      x: [rows, depth].
      residual: [rows, outputs]; y has its dtype.
      weight: [outputs, depth].
      next_norm: [outputs], the weight of the norm.
      eps: added to the mean square inside the norm.
      bias: [outputs].
      prefetch, policy: as in `skinny_matmul`.

    Returns:
      y, and `rms_norm(y, next_norm, eps)`, both [rows, outputs]. In place of the norm None, for a
      single row on Triton: `skinny_matmul` takes the norm of one row on its way.

    Raises:
      ValueError: shapes that do not fit together.
      UnsupportedError: the Triton kernel lacks the case.
    """
    _check_product(x, weight)
    outputs = weight.shape[0]
    _check_shapes(
        residual=(residual, (x.shape[0], outputs)),
        next_norm=(next_norm, (outputs,)),
        bias=(bias, (outputs,)),
    )
    return _implementation(policy).residual_matmul(
        x, residual, weight, next_norm=next_norm, eps=eps, bias=bias, prefetch=prefetch
    )


def _implementation(policy: KernelPolicy) -> Any:
    """The module with both products of the implementation that runs."""
    if choose_implementation(policy) == "xla":
        return reference
    from dendrite_jax.kernels.skinny_matmul import gpu

    return gpu


def _check_product(x: Array, weight: Array) -> None:
    """Raises ValueError unless x @ weight.T is a product of matrices."""
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"x {x.shape} and weight {weight.shape} are not [rows, k] and [n, k]")


def _check_shapes(**wanted: tuple[Array | None, tuple[int, ...]]) -> None:
    """Raises ValueError for an array, if there is one, that has not the wanted shape."""
    for name, (array, shape) in wanted.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, not {shape}")
