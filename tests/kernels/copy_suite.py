"""What the block copy must do, whatever implements it; subclasses name an implementation."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.copy_blocks import copy_blocks
from dendrite_jax.kernels.policy import Implementation, KernelPolicy

LAYERS, BLOCKS = 3, 20
SOURCE = np.array([4, 0, 4, 2], np.int32)
DESTINATION = np.array([1, BLOCKS, 6, BLOCKS + 1], np.int32)
"""One block copied twice, and two copies that name no block."""


def pools(dtype: str = "float32", shape: tuple[int, ...] = (2, 16, 6), seed: int = 0) -> Any:
    """Both pools; a block of 2 * 16 * 6 elements is no power of two."""
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.normal(size=(LAYERS, BLOCKS, *shape)), dtype) for _ in range(2))


def oracle(pool: Any, source: np.ndarray, destination: np.ndarray) -> np.ndarray:
    """Copy by copy, layer by layer."""
    copied = np.array(pool)
    for layer in range(LAYERS):
        for read, write in zip(source, destination, strict=True):
            if write < BLOCKS:
                copied[layer, write] = np.asarray(pool)[layer, read]
    return copied


class CopyBlocksSuite:
    """Against copies in plain Python; they are exact."""

    implementation: ClassVar[Implementation]

    def copy(self, *arrays: Any) -> Any:
        return jax.jit(partial(copy_blocks, policy=KernelPolicy(self.implementation)))(*arrays)

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_copies_all_layers_and_nothing_else(self, dtype: str) -> None:
        before = pools(dtype)
        for got, pool in zip(self.copy(*before, SOURCE, DESTINATION), before, strict=True):
            assert got.dtype == dtype
            np.testing.assert_array_equal(np.asarray(got), oracle(pool, SOURCE, DESTINATION))

    def test_a_block_larger_than_a_chunk(self) -> None:
        before = pools(shape=(4, 16, 80))
        for got, pool in zip(self.copy(*before, SOURCE, DESTINATION), before, strict=True):
            np.testing.assert_array_equal(got, oracle(pool, SOURCE, DESTINATION))

    def test_no_copies_leave_the_pools_alone(self) -> None:
        before = pools()
        nowhere = np.full(4, BLOCKS, np.int32)
        for got, pool in zip(self.copy(*before, SOURCE, nowhere), before, strict=True):
            np.testing.assert_array_equal(got, pool)

    def test_vmap_with_a_pool_each(self) -> None:
        k, v = (jnp.stack(pair) for pair in zip(pools(seed=1), pools(seed=2), strict=True))
        source, destination = np.stack([SOURCE, SOURCE[::-1]]), np.stack([DESTINATION] * 2)
        got = jax.vmap(self.copy)(k, v, source, destination)
        for mapped, pool in zip(got, (k, v), strict=True):
            for index in range(2):
                want = oracle(pool[index], source[index], destination[index])
                np.testing.assert_array_equal(mapped[index], want)

    def test_vmap_of_copies_within_one_pool(self) -> None:
        """Each problem then gets a pool of its own, since copies differ."""
        k, v = pools()
        destination = np.stack([DESTINATION, np.full(4, BLOCKS), DESTINATION[::-1]])
        got = jax.vmap(self.copy, (None, None, None, 0))(k, v, SOURCE, destination)
        for mapped, pool in zip(got, (k, v), strict=True):
            for index in range(3):
                want = oracle(pool, SOURCE, destination[index])
                np.testing.assert_array_equal(mapped[index], want)

    def test_nested_vmap(self) -> None:
        k, v = (jnp.stack(pair) for pair in zip(pools(seed=1), pools(seed=2), strict=True))
        destination = np.stack([DESTINATION, DESTINATION[::-1]])
        inner = jax.vmap(self.copy, (None, None, None, 0))
        got = jax.vmap(inner, (0, 0, None, None))(k, v, SOURCE, destination)
        for mapped, pool in zip(got, (k, v), strict=True):
            for i in range(2):
                for j in range(2):
                    want = oracle(pool[i], SOURCE, destination[j])
                    np.testing.assert_array_equal(mapped[i, j], want)
