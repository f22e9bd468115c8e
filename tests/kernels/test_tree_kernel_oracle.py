"""Tree attention: the XLA twin and the interpreted Triton kernels against dense float64."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.benchmarks.trees import levels_tree, random_tree
from dendrite_jax.kernels.tree_attention import tree_attention
from dendrite_jax.kernels.tree_attention import triton as kernels
from dendrite_jax.kernels.tree_attention.plan import build_plan, tile_counts
from dendrite_jax.kernels.tree_attention.shapes import TreeTiles
from kernels.dense import tree_oracle
from kernels.interpreter import launch, poisoned

LAYERS, LAYER = 2, 1
TILES = TreeTiles(
    wide_rows=32, wide_keys=32, narrow_rows=16, narrow_keys=32, programs=10, least_work=1
)


@partial(jax.jit, static_argnames=("num_blocks", "num_kv_heads", "group", "window", "tiles"))
def plan_of(table, length, **options):
    return build_plan(table, length, **options)


def pools(tree, num_kv_heads, head_dim, seed=0):
    rng = np.random.default_rng(seed)
    shape = (LAYERS, tree.num_blocks, num_kv_heads, 16, head_dim)
    return rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)


def queries(tree, num_heads, head_dim):
    rng = np.random.default_rng(7)
    return rng.normal(size=(len(tree.length), num_heads, head_dim)).astype(np.float32)


def interpreted(q, k_pool, v_pool, tree, *, scale, window=None, softcap=None, tiles=TILES):
    """Both kernels, one after the other, as the GPU implementation launches them."""
    lanes, num_heads, head_dim = q.shape
    num_kv_heads = k_pool.shape[2]
    group = num_heads // num_kv_heads
    plan = plan_of(
        tree.table,
        tree.length,
        num_blocks=tree.num_blocks,
        num_kv_heads=num_kv_heads,
        group=group,
        window=window,
        tiles=tiles,
    )
    workers = plan.work_tile.shape[0]
    wide, narrow = tile_counts(lanes, group, tiles)
    wide_lanes, narrow_lanes = tiles.lanes(group)
    cut = {
        "KV_HEADS": num_kv_heads,
        "G": group,
        "D": head_dim,
        "DIM": 1 << (head_dim - 1).bit_length(),
        "WIDE": wide > 0,
        "WIDE_LANES": wide_lanes,
        "WIDE_ROWS": tiles.wide_rows,
        "NARROW_LANES": narrow_lanes,
        "NARROW_ROWS": tiles.narrow_rows,
    }
    narrow_base = (workers + wide) * num_kv_heads * tiles.wide_rows
    rows = narrow_base + (workers + narrow) * num_kv_heads * tiles.narrow_rows
    partial_out = poisoned((rows, head_dim), "float32")
    partial_lse = poisoned((rows,), "float32")
    launch(
        kernels.partial_kernel,
        (workers * num_kv_heads,),
        q,
        k_pool,
        v_pool,
        plan.order,
        tree.length[np.asarray(plan.order)],
        plan.entry_block,
        plan.entry_info,
        plan.work_start,
        plan.work_tile,
        plan.work_stop,
        plan.tile_start,
        plan.tile_full,
        lanes,
        wide,
        narrow_base,
        LAYER * tree.num_blocks,
        partial_out,
        partial_lse,
        scale=scale,
        softcap=softcap or 0.0,
        window=window or 0,
        PRECISION="ieee",
        WIDE_KEYS=tiles.wide_keys,
        NARROW_KEYS=tiles.narrow_keys,
        **cut,
    )
    out = poisoned(q.shape, "float32")
    lse = poisoned(q.shape[:2], "float32")
    launch(
        kernels.merge_kernel,
        (narrow * tiles.narrow_rows // 4, num_kv_heads),
        partial_out,
        partial_lse,
        plan.order,
        plan.tile_worker,
        plan.tile_pieces,
        lanes,
        wide,
        narrow_base,
        out,
        lse,
        ROWS=4,
        PIECES=4,
        **cut,
    )
    return out.numpy(), lse.numpy()


def xla(q, k_pool, v_pool, tree, **options):
    return tree_attention(
        q, k_pool, v_pool, LAYER, tree.table, tree.length, implementation="xla", **options
    )


CASES: dict[str, Any] = {
    "one lane": (levels_tree((1,), (75,)), 4, 2, 16, {}),
    "shared prefix": (levels_tree((1, 6), (75, 21)), 8, 2, 16, {}),
    "three levels": (levels_tree((1, 3, 12), (70, 30, 20)), 8, 2, 16, {}),
    "unshared, one kv head": (levels_tree((5,), (40,)), 16, 1, 16, {}),
    "no grouping": (levels_tree((1, 20), (50, 10)), 2, 2, 16, {}),
    "groups of seven": (levels_tree((1, 2, 9), (33, 20, 5)), 7, 1, 16, {}),
    "odd head_dim": (levels_tree((1, 5), (40, 20)), 4, 1, 24, {}),
    "window": (levels_tree((1, 3, 9), (90, 30, 20)), 4, 1, 16, {"window": 35}),
    "soft-cap": (levels_tree((1, 4), (40, 20)), 4, 1, 16, {"softcap": 1.5}),
    "idle lanes": (random_tree(np.random.default_rng(3), 11, 40, idle=0.4), 8, 2, 16, {}),
}


@pytest.mark.parametrize("implementation", [xla, interpreted], ids=["xla", "triton"])
@pytest.mark.parametrize("case", CASES)
def test_matches_dense_float64(case, implementation):
    tree, num_heads, num_kv_heads, head_dim, options = CASES[case]
    q = queries(tree, num_heads, head_dim)
    k_pool, v_pool = pools(tree, num_kv_heads, head_dim)
    options = {"scale": head_dim**-0.5, **options}
    out, lse = implementation(q, k_pool, v_pool, tree, **options)
    want_out, want_lse = tree_oracle(q, k_pool, v_pool, LAYER, tree, **options)
    np.testing.assert_allclose(out, want_out, atol=2e-5)
    np.testing.assert_allclose(lse, want_lse, atol=2e-5)


@pytest.mark.parametrize("seed", range(4))
def test_random_trees_match_dense_float64(seed):
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, int(rng.integers(1, 24)), 60)
    q = queries(tree, 4, 16)
    k_pool, v_pool = pools(tree, 1, 16)
    window = [None, 20][seed % 2]
    out, lse = interpreted(q, k_pool, v_pool, tree, scale=0.3, window=window)
    want_out, want_lse = tree_oracle(q, k_pool, v_pool, LAYER, tree, scale=0.3, window=window)
    np.testing.assert_allclose(out, want_out, atol=2e-5)
    np.testing.assert_allclose(lse, want_lse, atol=2e-5)


def test_default_on_cpu_is_the_xla_twin():
    tree = levels_tree((1, 3), (20, 5))
    q = queries(tree, 2, 16)
    k_pool, v_pool = pools(tree, 1, 16)
    arguments: Any = (q, k_pool, v_pool, LAYER, tree.table, tree.length)
    if jax.default_backend() == "cpu":
        default = tree_attention(*arguments, scale=0.25)
        twin = tree_attention(*arguments, implementation="xla", scale=0.25)
        assert jnp.array_equal(default[0], twin[0])
