"""What writes to the pool, by plain XLA: appends, rotary embedding with append, block copies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.append_kv import append_kv
from dendrite_jax.kernels.copy_blocks import copy_blocks
from dendrite_jax.kernels.policy import KernelPolicy
from kernels.copy_suite import DESTINATION, SOURCE, CopyBlocksSuite
from kernels.copy_suite import pools as copy_pools
from kernels.rope_suite import (
    BLOCK,
    BLOCKS,
    KV_HEADS,
    LAYER,
    OFFSET,
    RopeAppendSuite,
    operands,
    rotated,
)


class TestCopyBlocksXla(CopyBlocksSuite):
    implementation = "xla"


class TestRopeAppendXla(RopeAppendSuite):
    implementation = "xla"


def _new_tokens(dtype: str = "float32") -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(3)
    shape = (*BLOCK.shape, KV_HEADS, 24)
    return jnp.asarray(rng.normal(size=shape), dtype), jnp.asarray(rng.normal(size=shape), dtype)


@pytest.mark.parametrize("pool_dtype", ["float32", "bfloat16"])
def test_append_writes_each_token_to_its_place(pool_dtype: str) -> None:
    arrays = operands(False, dtype=pool_dtype)
    k, v = _new_tokens()
    got = append_kv(
        arrays.k_pool, arrays.v_pool, LAYER, k, v, jnp.asarray(BLOCK), jnp.asarray(OFFSET)
    )
    for pool, before, new in zip(got, (arrays.k_pool, arrays.v_pool), (k, v), strict=True):
        want = np.array(before)
        for lane, token in np.ndindex(BLOCK.shape):
            if BLOCK[lane, token] < BLOCKS:
                place = LAYER, BLOCK[lane, token], slice(None), OFFSET[lane, token]
                want[place] = new[lane, token].astype(pool_dtype)
        assert pool.dtype == pool_dtype
        np.testing.assert_array_equal(np.asarray(pool), want)


def test_append_under_vmap_equals_a_loop() -> None:
    arrays = operands(False)
    k, v = _new_tokens()
    blocks, offset = jnp.stack([BLOCK, BLOCK[::-1]]), jnp.asarray(OFFSET)
    write = partial(append_kv, arrays.k_pool, arrays.v_pool, LAYER, k, v)
    mapped = jax.vmap(write, (0, None))(blocks, offset)
    for index in range(2):
        for got, want in zip(mapped, write(blocks[index], offset), strict=True):
            np.testing.assert_array_equal(got[index], want)


def _append(k_pool: Any, v_pool: Any) -> Any:
    k, v = _new_tokens()
    return append_kv(k_pool, v_pool, LAYER, k, v, jnp.asarray(BLOCK), jnp.asarray(OFFSET))


def _append_at_a_traced_layer(k_pool: Any, v_pool: Any) -> Any:
    k, v = _new_tokens()
    layer = jnp.argmax(k[0, 0, 0] >= -1e9) + LAYER  # LAYER, which XLA does not see
    return append_kv(k_pool, v_pool, layer, k, v, jnp.asarray(BLOCK), jnp.asarray(OFFSET))


def _rotate_append(k_pool: Any, v_pool: Any) -> Any:
    return rotated(operands(False)._replace(k_pool=k_pool, v_pool=v_pool), BLOCK, OFFSET, "xla")[1:]


def _copy(k_pool: Any, v_pool: Any) -> Any:
    places = jnp.asarray(SOURCE), jnp.asarray(DESTINATION)
    return copy_blocks(k_pool, v_pool, *places, policy=KernelPolicy("xla"))


def _rope_pools() -> Any:
    arrays = operands(False)
    return arrays.k_pool, arrays.v_pool


WRITES: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
    "append_kv": (_append, _rope_pools),
    "append_kv, traced layer": (_append_at_a_traced_layer, _rope_pools),
    "rope_append": (_rotate_append, _rope_pools),
    "copy_blocks": (_copy, copy_pools),
}
"""A write to both pools, and what makes them."""


@pytest.mark.parametrize("name", WRITES)
def test_writes_donated_pools_in_place(name: str) -> None:
    write, make = WRITES[name]
    pools = make()
    places = [pool.unsafe_buffer_pointer() for pool in pools]
    written = jax.jit(write, donate_argnums=(0, 1))(*pools)
    assert [pool.unsafe_buffer_pointer() for pool in written] == places
    assert all(pool.is_deleted() for pool in pools)


@pytest.mark.parametrize("name", WRITES)
def test_leaves_pools_that_were_not_donated(name: str) -> None:
    write, make = WRITES[name]
    pools = make()
    before = [np.array(pool) for pool in pools]
    written = jax.jit(write)(*pools)
    for pool, kept, new in zip(pools, before, written, strict=True):
        np.testing.assert_array_equal(pool, kept)
        assert not np.array_equal(new, kept)


@pytest.mark.parametrize("name", WRITES)
def test_a_loop_keeps_one_copy_of_the_pools(name: str) -> None:
    """The temporaries of a loop of writes are smaller than one pool."""
    write, make = WRITES[name]
    pools = make()

    def loop(k_pool: Any, v_pool: Any) -> Any:
        return jax.lax.fori_loop(0, 3, lambda _, both: tuple(write(*both)), (k_pool, v_pool))

    program = jax.jit(loop, donate_argnums=(0, 1)).lower(*pools).compile()
    memory = program.memory_analysis()
    assert memory is not None
    assert memory.alias_size_in_bytes >= 2 * pools[0].nbytes
    assert memory.temp_size_in_bytes < pools[0].nbytes


@pytest.mark.parametrize("layer", range(2))
def test_append_takes_a_traced_layer(layer: int) -> None:
    arrays = operands(False)
    k, v = _new_tokens()
    write = partial(append_kv, k=k, v=v, block=jnp.asarray(BLOCK), offset=jnp.asarray(OFFSET))
    got = jax.jit(write)(arrays.k_pool, arrays.v_pool, jnp.int32(layer))
    want = write(arrays.k_pool, arrays.v_pool, layer)
    for part, expected in zip(got, want, strict=True):
        np.testing.assert_array_equal(part, expected)
