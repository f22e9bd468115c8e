"""The numbers of `stats`, worked out by hand for one small tree of branches."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from cache.harness import MODEL_SHAPE, SMALL, Harness, inspect
from dendrite_jax import cache as kv
from dendrite_jax.cache import CacheConfig


def numbers(harness: Harness) -> dict[str, float]:
    return {name: float(value) for name, value in vars(inspect(harness.cache)[1]).items()}


def test_an_empty_cache_shares_and_wastes_nothing() -> None:
    assert numbers(Harness()) == {
        "branches": 0,
        "blocks_used": 0,
        "blocks_free": 9,
        "blocks_shared": 0,
        "sharing_ratio": 1,
        "fragmentation": 0,
        "bytes_used": 0,
    }


def test_a_tree_of_three_branches() -> None:
    harness = Harness()
    (root,) = harness.open()
    harness.append({root: 6})  # blocks of 4 and 2 tokens
    left, _ = harness.fork([root, root])
    harness.append({left: 3})  # its own copy of the second block, full, and a third of 1 token
    # Blocks: [4 tokens, held by 3], [2 tokens, held by 2], [4 tokens], [1 token].
    found = numbers(harness)
    assert found.pop("sharing_ratio") == pytest.approx(7 / 4)
    assert found.pop("fragmentation") == pytest.approx(1 - 11 / 16)
    # Keys and values of 4 tokens, 2 layers, 1 head of 2 float32 numbers: 128 bytes a block.
    assert found == {
        "branches": 3,
        "blocks_used": 4,
        "blocks_free": 5,
        "blocks_shared": 2,
        "bytes_used": 512,
    }


def test_bytes_are_those_of_the_dtype_and_block_size() -> None:
    shape = kv.uniform_shape(num_layers=3, num_kv_heads=2, head_dim=8)
    config = CacheConfig(num_blocks=5, num_slots=2, max_context=64)

    @jax.jit
    def one_token() -> kv.CacheStats:
        cache, ids = kv.open_branches(kv.init(config, shape, dtype=jnp.bfloat16), jnp.ones(1, bool))
        cache, _ = kv.append(cache, ids, jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32))
        return kv.stats(cache)

    block = 2 * 3 * 2 * 16 * 8 * 2
    assert one_token().bytes_used == block
    assert kv.block_bytes(shape, dtype=jnp.bfloat16) == block
    assert kv.block_bytes(shape, dtype=jnp.float32, block_size=4) == block // 2


def test_guard_blocks_are_not_counted() -> None:
    plain = CacheConfig(**{**vars(SMALL), "debug": False})
    with_guards, without = (kv.stats(kv.init(c, MODEL_SHAPE)) for c in (SMALL, plain))
    assert jax.device_get(with_guards) == jax.device_get(without)
