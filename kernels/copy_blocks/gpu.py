"""The Triton block copy as a JAX function."""

from __future__ import annotations

from math import prod
from typing import Any

from jax import Array
from jax.custom_batching import custom_vmap

from dendrite_jax.kernels.batching import batch, fold_blocks, fold_pool
from dendrite_jax.kernels.copy_blocks import triton as kernels
from dendrite_jax.kernels.launch import array_type, launch, power_of_two

CHUNK = 4096
"""Elements that a program copies at a time."""


def copy_blocks(
    k_pool: Array,
    v_pool: Array,
    source: Array,
    destination: Array,
    layers: int | None = None,
    limit: int | None = None,
) -> tuple[Array, Array]:
    """`dendrite_jax.kernels.copy_blocks.copy_blocks` on Triton; the pools alias its outputs.

    `layers` is how many layers a block has, all of the pool if None; `limit` is the first id that
    names no block, the blocks of one layer if None. Under `vmap` the copies of all problems are one
    launch.
    """
    copied_layers, num_blocks = layers or k_pool.shape[0], k_pool.shape[1]
    end = limit or num_blocks

    @custom_vmap
    def copy(
        k_pool: Array, v_pool: Array, source: Array, destination: Array
    ) -> tuple[Array, Array]:
        size = prod(k_pool.shape[2:])
        return launch(
            k_pool,
            v_pool,
            source,
            destination,
            num_blocks,
            end,
            kernel=kernels.copy_kernel,
            grid=(source.shape[0], copied_layers),
            out_type=(
                array_type(k_pool.shape, k_pool.dtype),
                array_type(v_pool.shape, v_pool.dtype),
            ),
            num_warps=4,
            aliases={0: 0, 1: 1},
            SIZE=size,
            CHUNK=min(CHUNK, power_of_two(size)),
        )

    @copy.def_vmap
    def _mapped(
        size: int, batched: Any, k_pool: Any, v_pool: Any, source: Any, destination: Any
    ) -> Any:
        k_pool, v_pool = batch(k_pool, batched[0], size), batch(v_pool, batched[1], size)
        shape = k_pool.shape
        pools = copy_blocks(
            fold_pool(k_pool),
            fold_pool(v_pool),
            fold_blocks(batch(source, batched[2], size), k_pool, end),
            fold_blocks(batch(destination, batched[3], size), k_pool, end),
            layers=copied_layers,
            limit=size * shape[1] * shape[2],
        )
        return tuple(pool.reshape(shape) for pool in pools), (True, True)

    return copy(k_pool, v_pool, source, destination)
