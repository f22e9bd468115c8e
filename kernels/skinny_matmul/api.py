"""The public call of the skinny product."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from dendrite_jax.kernels.dispatch import choose_implementation
from dendrite_jax.kernels.skinny_matmul import reference


def skinny_matmul(
    x: Array,
    weight: Array,
    *,
    norm: Array | None = None,
    eps: float = 1e-5,
    bias: Array | None = None,
    swiglu: bool = False,
    residual: Array | None = None,
    out_dtype: DTypeLike | None = None,
    prefetch: Array | None = None,
    implementation: str | None = None,
) -> Array:
    """`epilogue(rms_norm(x) @ weight.T)` for a few rows, in one pass over the weight.

    Sums are float32. The steps, in order: RMS norm of each row of x (if `norm`), the product, plus
    `bias`, `silu(gate) * up` of the two halves of the result (if `swiglu`), plus `residual`.

    Args:
      x: [rows, depth].
      weight: [outputs, depth], Hugging Face's layout; with `swiglu` [2 * outputs, depth], the gate
        rows first.
      norm: [depth], the weight of the RMS norm (Zhang & Sennrich 2019), or None for no norm.
      eps: added to the mean square inside the norm.
      bias: [outputs], or [2 * outputs] with `swiglu`.
      swiglu: whether the weight holds a gate and an up projection (Shazeer 2020).
      residual: [rows, outputs], added last.
      out_dtype: dtype of the result; x's when None.
      prefetch: what the next kernel will read; its first bytes are brought into the cache as this
        product ends. A hint, which only the kernel of one row takes.
      implementation: "triton", "xla", or None for the platform's.

    Returns:
      [rows, outputs].

    Raises:
      ValueError: shapes that do not fit together.
      UnsupportedError: the Triton kernel lacks the case.
    """
    _check(x, weight, norm, bias, swiglu, residual)
    out_dtype = x.dtype if out_dtype is None else out_dtype
    compute: Callable[..., Array] = reference.skinny_matmul
    if choose_implementation(implementation) == "triton":
        from dendrite_jax.kernels.skinny_matmul import gpu

        compute = gpu.skinny_matmul
    return compute(
        x,
        weight,
        norm=norm,
        eps=eps,
        bias=bias,
        swiglu=swiglu,
        residual=residual,
        out_dtype=jnp.dtype(out_dtype),
        prefetch=prefetch,
    )


def _check(
    x: Array,
    weight: Array,
    norm: Array | None,
    bias: Array | None,
    swiglu: bool,
    residual: Array | None,
) -> None:
    """Raises ValueError for shapes that do not fit together."""
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(f"x {x.shape} and weight {weight.shape} are not [rows, k] and [n, k]")
    if swiglu and weight.shape[0] % 2:
        raise ValueError(f"weight has {weight.shape[0]} rows, but swiglu needs an even number")
    outputs = weight.shape[0] // (2 if swiglu else 1)
    wanted = {
        "norm": (norm, (x.shape[1],)),
        "bias": (bias, (weight.shape[0],)),
        "residual": (residual, (x.shape[0], outputs)),
    }
    for name, (array, shape) in wanted.items():
        if array is not None and array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, not {shape}")
