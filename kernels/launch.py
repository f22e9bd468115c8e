"""Launching Triton kernels from jitted functions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.blocks import BLOCK_SIZE
from dendrite_jax.kernels.dispatch import UnsupportedError

HEAD_DIMS = (64, 96, 128, 256)
"""Elements of a head that the attention kernels were written for."""
DTYPES = (jnp.bfloat16, jnp.float16, jnp.float32)
"""Dtypes of the pool and of weights that the kernels read."""


def check_pool(num_heads: int, k_pool: Array) -> None:
    """Refuses a pool [layers, blocks, kv_heads, block_size, head_dim] that no kernel reads.

    Raises:
      UnsupportedError: the block size, head_dim or dtype is not one that they were written for.
      ValueError: the heads can not be divided among the kv heads.
    """
    _, _, num_kv_heads, block_size, head_dim = k_pool.shape
    if block_size != BLOCK_SIZE:
        raise UnsupportedError(f"block size {block_size}: the kernel reads {BLOCK_SIZE}")
    if head_dim not in HEAD_DIMS:
        raise UnsupportedError(f"head_dim {head_dim}: the kernel takes one of {HEAD_DIMS}")
    if k_pool.dtype not in DTYPES:
        raise UnsupportedError(f"pool dtype {k_pool.dtype}: the kernel takes bf16, fp16, fp32")
    if num_heads % num_kv_heads:
        raise ValueError(f"{num_heads} heads are not a multiple of {num_kv_heads} kv heads")


def in_order(kernel: Any, **operands: Array | int | None) -> tuple[Array | int | None, ...]:
    """A kernel's operands in the order of its leading parameters.

    Raises:
      TypeError: they are not those parameters.
    """
    names = kernel.arg_names[: len(operands)]
    if set(names) != set(operands):
        raise TypeError(f"operands {sorted(operands)} are not the kernel's first, {names}")
    return tuple(operands[name] for name in names)


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
      operands: the kernel's leading parameters (see `in_order`): arrays, integers, or None for an
        absent array. Pointers to the outputs follow them in the kernel's signature.
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


def layer_operand(layer: int | Array, num_blocks: int) -> tuple[int | Array, bool]:
    """A layer's first block among the blocks of all layers, and whether that is traced.

    To a kernel a traced one is a pointer (`LAYER_TRACED`), an int is an integer.
    """
    if isinstance(layer, int):
        return layer * num_blocks, False
    return layer.astype(jnp.int32) * num_blocks, True


def prefetch_groups(array: Array | None, most_bytes: int) -> int:
    """How many groups of cache lines to prefetch from the start of an array (see prefetch.py)."""
    from dendrite_jax.kernels.prefetch import GROUP_BYTES

    return 0 if array is None else min(array.nbytes, most_bytes) // GROUP_BYTES


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least `n`; Triton's blocks have such sizes."""
    return 1 << (n - 1).bit_length()


def array_type(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """The abstract array of a kernel's output."""
    return jax.ShapeDtypeStruct(shape, dtype)
