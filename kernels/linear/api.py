"""The public calls of the product: with its epilogue, and added to a residual.

They are two because their results differ: one gives a product, the other a sum and its norm.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from dendrite_jax.kernels.dispatch import choose_implementation
from dendrite_jax.kernels.linear import reference
from dendrite_jax.kernels.linear.formats import Weight
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy


def linear(
    x: Array,
    weight: Weight,
    *,
    norm: Array | None = None,
    eps: float = 1e-5,
    bias: Array | None = None,
    swiglu: bool = False,
    out_dtype: DTypeLike | None = None,
    prefetch: Weight | None = None,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> Array:
    """A linear layer, `epilogue(rms_norm(x) @ weight.T)`, in one pass over the weight for few rows.

    The weight is read in x's dtype; sums are float32. The steps, in order: RMS norm of each row of
    x (if `norm`), the product, plus `bias`, `silu(gate) * up` of the two halves of the result (if
    `swiglu`). More than MAX_ROWS rows are XLA's product, whatever the implementation; float32 is
    then as precise as jax's `default_matmul_precision` says, by default TF32 on a GPU.

    Args:
      x: [rows, depth].
      weight: [outputs, depth], of any format; with `swiglu` [2 * outputs, depth], the gate rows
        first.
      norm: [depth], the weight of the RMS norm (Zhang & Sennrich 2019), or None for no norm.
      eps: added to the mean square inside the norm.
      bias: [outputs], or [2 * outputs] with `swiglu`.
      swiglu: whether the weight holds a gate and an up projection (Shazeer 2020).
      out_dtype: dtype of the result; x's when None.
      prefetch: the weight that the next kernel reads; its first bytes are brought into the cache as
        this product ends. A hint, which only the kernel of one row takes.
      policy: which implementation runs.

    Returns:
      [rows, outputs].

    Raises:
      ValueError: shapes that do not fit together.
      UnsupportedError: the Triton kernel lacks the format or the case.
    """
    _check_product(x, weight)
    if swiglu and weight.shape[0] % 2:
        raise ValueError(f"weight has {weight.shape[0]} rows, but swiglu needs an even number")
    _check_shapes(norm=(norm, (x.shape[1],)), bias=(bias, (weight.shape[0],)))
    out_dtype = x.dtype if out_dtype is None else out_dtype
    return _implementation(policy).linear(
        x,
        weight,
        norm=norm,
        eps=eps,
        bias=bias,
        swiglu=swiglu,
        out_dtype=jnp.dtype(out_dtype),
        prefetch=prefetch,
    )


def residual_linear(
    x: Array,
    residual: Array,
    weight: Weight,
    *,
    next_norm: Array,
    eps: float = 1e-5,
    bias: Array | None = None,
    prefetch: Weight | None = None,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> tuple[Array, Array | None]:
    """`y = residual + x @ weight.T + bias`, and the RMS norm that the next product starts with.

    Args:
      x: [rows, depth].
      residual: [rows, outputs]; y has its dtype.
      weight: [outputs, depth], of any format.
      next_norm: [outputs], the weight of the norm.
      eps: added to the mean square inside the norm.
      bias: [outputs].
      prefetch, policy: as in `linear`.

    Returns:
      y, and `rms_norm(y, next_norm, eps)`, both [rows, outputs]. In place of the norm None, for a
      single row on Triton: `linear` takes the norm of one row on its way.

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
    return _implementation(policy).residual_linear(
        x, residual, weight, next_norm=next_norm, eps=eps, bias=bias, prefetch=prefetch
    )


def runs_row_kernel(rows: int, policy: KernelPolicy) -> bool:
    """Whether products of so many rows run the kernel of one row.

    It takes a norm on its way and prefetches the next weight; others do neither, and
    `residual_linear` then gives the norm.
    """
    return rows == 1 and choose_implementation(policy) == "triton"


def _implementation(policy: KernelPolicy) -> Any:
    """The module with both products of the implementation that runs."""
    if choose_implementation(policy) == "xla":
        return reference
    from dendrite_jax.kernels.linear import gpu

    return gpu


def _check_product(x: Array, weight: Weight) -> None:
    """Raises ValueError unless x @ weight.T is a product of matrices."""
    if x.ndim != 2 or len(weight.shape) != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"x {x.shape} and weight {weight.shape} are not [rows, k] and [n, k]")


def _check_shapes(**wanted: tuple[Array | None, tuple[int, ...]]) -> None:
    """Raises ValueError for an array, if there is one, that has not the wanted shape."""
    for name, (array, shape) in wanted.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, not {shape}")
