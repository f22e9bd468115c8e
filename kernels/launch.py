"""Launching Triton kernels from jitted functions."""

from __future__ import annotations

from typing import Any

import jax
from jax import Array

from dendrite_jax.kernels.dispatch import UnsupportedError


def launch(
    *operands: Array | int | None,
    kernel: Any,
    grid: tuple[int, ...],
    out_type: Any,
    num_warps: int,
    num_stages: int = 3,
    aliases: dict[int, int] | None = None,
    **constants: Any,
) -> Any:
    """Calls a Triton kernel on a CUDA device, as part of the surrounding jit.

    Args:
      operands: the kernel's leading parameters in order: arrays, integers, or None for an absent
        array. Pointers to the outputs follow them in the kernel's signature.
      kernel: a `triton.jit` function.
      grid: programs along up to three axes.
      out_type: a `jax.ShapeDtypeStruct` or a tuple of them.
      num_warps, num_stages: Triton's launch width and software-pipelining depth.
      aliases: operand index → output index, for operands that the kernel updates in place. An
        aliased output has no pointer of its own.
      constants: the kernel's `constexpr` parameters.

    Returns:
      The outputs, shaped as `out_type`.

    Raises:
      UnsupportedError: where jax-triton is missing or older than 0.4, whose calls XLA can not
        capture in command buffers.
    """
    try:
        import jax_triton
    except ImportError as error:
        raise UnsupportedError(
            "implementation 'triton' needs a CUDA device and jax-triton >= 0.4 (Python >= 3.12)"
        ) from error
    version = tuple(int(part) for part in jax_triton.__version__.split(".")[:2])
    if version < (0, 4):
        raise UnsupportedError(f"jax-triton {jax_triton.__version__} is older than 0.4")
    return jax_triton.triton_call(
        *operands,
        kernel=kernel,
        grid=grid,
        out_type=out_type,
        num_warps=num_warps,
        num_stages=num_stages,
        input_output_aliases=aliases,
        **constants,
    )


def prefetch_groups(array: Array | None, most_bytes: int) -> int:
    """How many groups of cache lines to prefetch from the start of an array (see prefetch.py)."""
    from dendrite_jax.kernels.prefetch import GROUP_BYTES

    return 0 if array is None else min(array.nbytes, most_bytes) // GROUP_BYTES


def array_type(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """The abstract array of a kernel's output."""
    return jax.ShapeDtypeStruct(shape, dtype)
