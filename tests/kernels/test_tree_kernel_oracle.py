"""Tree attention: the XLA twin and the interpreted Triton kernels against dense float64."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.benchmarks.trees import levels_tree, random_tree
from dendrite_jax.kernels.tree_attention import gpu, tree_attention
from dendrite_jax.kernels.tree_attention.shapes import TreeTiles
from kernels.dense import tree_oracle
from kernels.interpreter import interpreted  # noqa: F401

LAYERS, LAYER = 2, 1


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Tiles of few lanes and keys, so that small trees have several of each kind."""

    def tiles(group, head_dim, itemsize, lanes):
        narrow = max(16, 1 << (group - 1).bit_length())
        return TreeTiles(
            wide_rows=2 * narrow,
            wide_keys=32,
            narrow_rows=narrow,
            narrow_keys=32,
            programs=6,
            tile_cost=3,
            least_work=1,
            merge_rows=4,
            merge_pieces=2,
        )

    monkeypatch.setattr(gpu, "tree_tiles", tiles)


def pools(tree, num_kv_heads, head_dim, dtype=np.float32):
    rng = np.random.default_rng(0)
    shape = (LAYERS, tree.num_blocks, num_kv_heads, 16, head_dim)
    return tuple(jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2))


def queries(tree, num_heads, head_dim, dtype=np.float32):
    rng = np.random.default_rng(7)
    return jnp.asarray(rng.normal(size=(len(tree.length), num_heads, head_dim)), dtype)


def check(tree, num_heads, num_kv_heads, head_dim, implementation, dtype=np.float32, **options):
    """Compares with the oracle; the bounds are a few roundings of the dtype."""
    q = queries(tree, num_heads, head_dim, dtype)
    k_pool, v_pool = pools(tree, num_kv_heads, head_dim, dtype)
    options = {"scale": head_dim**-0.5, **options}
    out, lse = tree_attention(
        q,
        k_pool,
        v_pool,
        LAYER,
        jnp.asarray(tree.table),
        jnp.asarray(tree.length),
        implementation=implementation,
        **options,
    )
    want_out, want_lse = tree_oracle(q, k_pool, v_pool, LAYER, tree, **options)
    bound = {"float32": 2e-5, "float16": 2e-3}[np.dtype(dtype).name]
    error = np.linalg.norm(np.asarray(out, np.float64) - want_out) / np.linalg.norm(want_out)
    assert error < bound
    idle = np.asarray(tree.length) == 0
    assert not np.asarray(out, np.float64)[idle].any()
    np.testing.assert_allclose(lse, want_lse, atol=10 * bound)


CASES: dict[str, Any] = {
    "one lane": (levels_tree((1,), (75,)), 4, 2, {}),
    "shared prefix": (levels_tree((1, 6), (75, 21)), 8, 2, {}),
    "three levels": (levels_tree((1, 3, 12), (70, 30, 20)), 8, 2, {}),
    "unshared, groups of sixteen": (levels_tree((5,), (40,)), 16, 1, {}),
    "no grouping": (levels_tree((1, 20), (50, 10)), 2, 2, {}),
    "groups of seven": (levels_tree((1, 2, 9), (33, 20, 5)), 7, 1, {}),
    "window": (levels_tree((1, 3, 9), (90, 30, 20)), 4, 1, {"window": 35}),
    "soft-cap": (levels_tree((1, 4), (40, 20)), 4, 1, {"softcap": 1.5}),
    "scale": (levels_tree((1, 4), (40, 20)), 4, 1, {"scale": 0.7}),
    "idle lanes": (random_tree(np.random.default_rng(3), 11, 40, idle=0.4), 8, 2, {}),
}


@pytest.mark.parametrize("implementation", ["xla", "triton"])
@pytest.mark.parametrize("case", CASES)
def test_matches_dense_float64(case, implementation):
    tree, num_heads, num_kv_heads, options = CASES[case]
    check(tree, num_heads, num_kv_heads, 64, implementation, **options)


@pytest.mark.parametrize("implementation", ["xla", "triton"])
@pytest.mark.parametrize(
    ("head_dim", "dtype"),
    [(96, np.float32), (128, np.float16), (256, np.float32)],
)
def test_head_dims_and_dtypes(head_dim, dtype, implementation):
    check(levels_tree((1, 4), (40, 20)), 4, 1, head_dim, implementation, dtype)


@pytest.mark.parametrize("seed", range(4))
def test_random_trees(seed):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, int(rng.integers(2, 24)), 60)
    check(tree, 4, 1, 64, "triton", window=[None, 20][seed % 2])


@pytest.mark.parametrize("implementation", ["xla", "triton"])
def test_idle_lanes_alone_give_zeros(implementation):
    tree = levels_tree((3,), (20,))
    out, lse = tree_attention(
        queries(tree, 2, 64),
        *pools(tree, 1, 64),
        LAYER,
        jnp.asarray(tree.table),
        jnp.zeros(3, jnp.int32),
        implementation=implementation,
    )
    assert not np.asarray(out).any()
    assert np.isneginf(np.asarray(lse)).all()


@pytest.mark.parametrize("pools_mapped", [False, True])
def test_vmap_equals_a_loop(pools_mapped):
    trees = [random_tree(np.random.default_rng(seed), 5, 40).padded(12, 40) for seed in range(2)]
    table = jnp.stack([tree.table for tree in trees])
    length = jnp.stack([tree.length for tree in trees])
    q = jax.random.normal(jax.random.key(0), (2, 5, 4, 64))
    pool = jax.random.normal(jax.random.key(1), (2, 2, LAYERS, 40, 2, 16, 64))

    def attend(q, pools, table, length, implementation="triton"):
        return tree_attention(q, *pools, LAYER, table, length, implementation=implementation)

    def of(problem):
        return pool[problem if pools_mapped else 0]

    axes = (0, 0 if pools_mapped else None, 0, 0)
    mapped = jax.vmap(attend, axes)(q, pool if pools_mapped else pool[0], table, length)
    for problem in range(2):
        alone = attend(q[problem], of(problem), table[problem], length[problem], "xla")
        for got, want in zip(mapped, alone, strict=True):
            np.testing.assert_allclose(got[problem], want, atol=1e-5)


def test_default_on_cpu_is_the_xla_twin():
    tree = levels_tree((1, 3), (20, 5))
    arguments = (queries(tree, 2, 64), *pools(tree, 1, 64), LAYER, tree.table, tree.length)
    default = tree_attention(*arguments, scale=0.25)
    twin = tree_attention(*arguments, implementation="xla", scale=0.25)
    assert jnp.array_equal(default[0], twin[0])
