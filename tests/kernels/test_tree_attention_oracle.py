"""Tree attention by the interpreted Triton kernels."""

from __future__ import annotations

import dataclasses
from collections import Counter
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.benchmarks.kernels.trees import levels_tree
from dendrite_jax.kernels.dispatch import UnsupportedError
from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.kernels.tree_attention import gpu, make_plan, tree_attention
from kernels.dense import assert_close, paged_oracle
from kernels.interpreter import interpreted, recorded_loads  # noqa: F401
from kernels.tree_suite import (
    CASES,
    LANES,
    LAYER,
    MAX_BLOCKS,
    SHARED,
    Case,
    TreeAttentionSuite,
    check,
    operands,
    padded,
    small_tiles,
)

TRITON = KernelPolicy("triton")


def attend(q: Any, k: Any, v: Any, table: Any, length: Any, **options: Any) -> Any:
    """Tree attention of LAYER, traced anew, so with the tile sizes of the moment."""
    compute = partial(tree_attention, policy=TRITON, **options)
    return jax.jit(compute, static_argnums=3)(q, k, v, LAYER, table, length)


STAGGERED = dataclasses.replace(small_tiles(24, 4, 1, 64, 4), programs=6, wide_tile_cost=16)
"""Starting on a tile takes as long as eight blocks of it, so that parts are not in phase."""


class TestTriton(TreeAttentionSuite):
    implementation = "triton"
    unseen_value = 1e30  # zero times NaN is NaN, and what to mask is known too late

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "tree_tiles", small_tiles)


@pytest.mark.parametrize("name", ["three levels", "groups of eight, bf16"])
def test_tuned_tiles_match_dense_float64(name: str) -> None:
    check(CASES[name], attend)


@pytest.mark.parametrize(
    ("nodes", "tokens"),
    [((1, 24), (640, 5)), ((1, 2, 24), (640, 100, 5))],
    ids=["all lanes see all", "some see more"],
)
def test_tiles_read_a_long_prefix_in_step(
    nodes: tuple[int, ...], tokens: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three wide tiles, whose workers begin in the middle of their parts."""
    monkeypatch.setattr(gpu, "tree_tiles", lambda *shape: STAGGERED)
    tree = levels_tree(nodes, tokens)
    rng = np.random.default_rng(0)
    pool = (LAYER + 1, tree.num_blocks, 1, 16, 64)
    q, k, v = (rng.normal(size=shape).astype(np.float32) for shape in ((24, 4, 64), pool, pool))
    got = attend(*map(jnp.asarray, (q, k, v, tree.table, tree.length)))
    want = paged_oracle(q[:, None], k, v, LAYER, tree.table, tree.length - 1)
    assert_close(got, (want[0][:, 0], want[1][:, 0]), "float32")


@pytest.mark.parametrize("lanes", [2, 12])
def test_every_block_is_read_once_however_many_lanes_share_it(lanes: int) -> None:
    """Elements of the pools are numbered, queries negative: the values loaded tell what is read."""
    tree = padded(levels_tree((1, 2, lanes), (40, 20, 9)))
    q, k, v = operands(Case(SHARED))
    k = jnp.arange(k.size, dtype=jnp.float32).reshape(k.shape)
    q = -jnp.ones_like(q)
    with recorded_loads(dimensions=2) as loads:
        jax.block_until_ready(attend(q, k, -jnp.ones_like(v), tree.table, tree.length))
    values = np.concatenate([load.ravel() for load in loads])
    reads = Counter(values[values > 0].astype(int).tolist())
    per_block = k[0, 0].size
    assert set(reads.values()) == {1}
    blocks = {number // per_block - LAYER * k.shape[1] for number in reads}
    assert blocks == tree.unique_blocks()
    assert len(reads) == len(blocks) * per_block


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((2, 4, 1, 16, 80), "float32", "head_dim 80: the kernel takes one of"),
        ((2, 4, 1, 32, 64), "float32", "block size 32: the kernel reads 16"),
        ((2, 4, 1, 16, 64), "float8_e4m3fn", "pool dtype float8_e4m3fn: the kernel takes bf16"),
    ],
)
def test_refuses_what_the_kernels_lack(shape: tuple[int, ...], dtype: str, reason: str) -> None:
    pool = jnp.zeros(shape, dtype)
    q, table, length = jnp.zeros((3, 4, shape[-1])), jnp.zeros((3, 2), int), jnp.ones(3, int)
    message = rf"{reason}.*; KernelPolicy\(implementation='xla'\) runs the plain-XLA twin instead"
    with pytest.raises(UnsupportedError, match=message):
        tree_attention(q, pool, pool, 0, table, length, policy=TRITON)
    with pytest.raises(UnsupportedError, match=message):
        make_plan(table, length, pool, 4, policy=TRITON)


def test_refuses_a_plan_of_another_window() -> None:
    tree = padded(SHARED)
    q, k, v = operands(Case(SHARED))
    arrays = jnp.asarray(tree.table), jnp.asarray(tree.length)

    def mismatched(table: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        plan = make_plan(table, length, k, q.shape[1], window=8, policy=TRITON)
        return tree_attention(q, k, v, LAYER, table, length, plan=plan, policy=TRITON)

    with pytest.raises(ValueError, match="the plan is for window 8 and 4 query heads a kv head"):
        jax.eval_shape(mismatched, *arrays)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ({}, True),
        ({"length": 47}, True),
        ({"length": 49}, False),
        ({"length": 0}, False),
        ({"block": 50}, False),
        ({"beyond": 50}, True),
    ],
    ids=str,
)
def test_a_plan_is_kept_while_the_held_blocks_stay_the_same(
    change: dict[str, int], kept: bool
) -> None:
    """Told from a mark in a field that no kernel would change."""
    tree = padded(SHARED)
    table, length = jnp.asarray(tree.table), jnp.full(LANES, 45)
    _, pool, _ = operands(Case(SHARED))
    changed_table = table.at[3, 1].set(change.get("block", table[3, 1]))
    changed_table = changed_table.at[3, 5].set(change.get("beyond", -1))
    changed_length = length.at[3].set(change.get("length", 45))

    @jax.jit
    def plan_twice(table: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        plan = partial(make_plan, k_pool=pool, num_heads=4, policy=TRITON)
        first = plan(jnp.asarray(tree.table), jnp.full(LANES, 45))
        assert first is not None
        marked = dataclasses.replace(first, period=jnp.full(1, -7))
        going_on, fresh = plan(table, length, previous=marked), plan(table, length)
        assert going_on is not None
        same = jax.tree.map(jnp.array_equal, going_on, fresh)
        return going_on.period[0] == -7, jnp.stack(jax.tree.leaves(same)).all()

    was_kept, is_fresh = plan_twice(changed_table, changed_length)
    assert (bool(was_kept), bool(is_fresh)) == (kept, not kept)


def test_refuses_a_plan_of_other_tables() -> None:
    q, pool, _ = operands(Case(SHARED))
    table, length = jnp.full((LANES, MAX_BLOCKS), -1), jnp.zeros(LANES, int)
    plan = make_plan(table, length, pool, 4, policy=TRITON)
    with pytest.raises(ValueError, match=r"for tables \(12, 8\), not \(11, 8\)"):
        tree_attention(q[1:], pool, pool, LAYER, table[1:], length[1:], plan=plan, policy=TRITON)


@pytest.mark.parametrize(
    ("lanes", "heads", "window", "message"),
    [
        (11, 4, None, r"for tables \(12, 8\), not \(11, 8\)"),
        (12, 8, None, "for window None and 4 query heads a kv head, not None and 8"),
        (12, 4, 8, "for window None and 4 query heads a kv head, not 8 and 4"),
    ],
)
def test_a_plan_of_something_else_can_not_go_on(
    lanes: int, heads: int, window: int | None, message: str
) -> None:
    table, length = jnp.full((LANES, MAX_BLOCKS), -1), jnp.zeros(LANES, int)
    _, pool, _ = operands(Case(SHARED))
    plan = partial(make_plan, k_pool=pool, policy=TRITON)
    made = plan(table, length, num_heads=4)
    with pytest.raises(ValueError, match=message):
        plan(table[:lanes], length[:lanes], num_heads=heads, window=window, previous=made)


def test_refuses_a_table_whose_columns_an_entry_can_not_number() -> None:
    _, pool, _ = operands(Case(SHARED))
    table, length = jnp.full((1, 2**15 + 1), -1), jnp.zeros(1, int)
    with pytest.raises(
        UnsupportedError, match="32769 blocks a lane: the kernel takes at most 32768"
    ):
        make_plan(table, length, pool, 4, policy=TRITON)


def test_a_plan_prints_as_one_line() -> None:
    table, length = jnp.zeros((2, 4), jnp.int32), jnp.ones(2, jnp.int32)
    pool = jnp.zeros((1, 8, 1, 16, 64), jnp.bfloat16)

    def line(table: jax.Array, length: jax.Array) -> jax.Array:
        plan = make_plan(table, length, pool, 4, policy=KernelPolicy("triton"))
        lines.append(repr(plan))
        return length

    lines: list[str] = []
    jax.eval_shape(line, table, length)
    assert lines[0].startswith("Plan(table=i32[2,4], order=i32[2], ")
    assert "\n" not in lines[0]
