"""The public call of the block copy."""

from __future__ import annotations

from jax import Array

from dendrite_jax.kernels.checks import check_pools
from dendrite_jax.kernels.copy_blocks import reference
from dendrite_jax.kernels.dispatch import choose_implementation
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy


def copy_blocks(
    k_pool: Array,
    v_pool: Array,
    source: Array,
    destination: Array,
    *,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> tuple[Array, Array]:
    """Copies blocks of the pool, all layers at once, in place under jit.

    Args:
      k_pool, v_pool: [layers, blocks, kv_heads, block_size, head_dim]; reuse the returned pools
        and drop these, so that XLA updates the buffers in place.
      source: i32[n], the blocks to read; no block is a source and a destination.
      destination: i32[n], the blocks to write, all different; `blocks` or more copies nothing.
      policy: which implementation runs.

    Returns:
      The updated pools.

    Raises:
      ValueError: shapes that do not fit together.
      UnsupportedError: the Triton kernel cannot be launched here.
    """
    check_pools(k_pool, v_pool, 0)
    if source.ndim != 1 or destination.shape != source.shape:
        raise ValueError(f"source {source.shape} and destination {destination.shape} are not [n]")
    if choose_implementation(policy) == "triton":
        from dendrite_jax.kernels.copy_blocks import gpu

        return gpu.copy_blocks(k_pool, v_pool, source, destination)
    return reference.copy_blocks(k_pool, v_pool, source, destination)
