"""What tree attention must do, whatever implements it; subclasses name an implementation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.benchmarks.kernels.trees import Tree, levels_tree, random_tree
from dendrite_jax.kernels.policy import Implementation, KernelPolicy
from dendrite_jax.kernels.tree_attention import make_plan, tree_attention
from dendrite_jax.kernels.tree_attention.shapes import TreeTiles
from kernels.dense import assert_close, paged_oracle, wide

LAYERS, LAYER = 2, 1
LANES, MAX_BLOCKS, BLOCKS = 12, 8, 64
"""Every tree is padded to these, so that cases of one shape share what is compiled."""


@dataclass(frozen=True)
class Case:
    """A tree of at most LANES lanes, a shape, and options."""

    tree: Tree
    heads: tuple[int, int] = (4, 1)
    head_dim: int = 64
    dtype: str = "float32"
    options: dict[str, Any] = field(default_factory=dict)


def grown(seed: int, idle: float = 0.3) -> Tree:
    """A random tree that fits."""
    rng = np.random.default_rng(seed)
    while True:
        tree = random_tree(rng, LANES, 30, idle)
        if tree.num_blocks <= BLOCKS and tree.table.shape[1] <= MAX_BLOCKS:
            return tree


SHARED = levels_tree((1, LANES), (37, 11))
DEEP = levels_tree((1, 3, LANES), (40, 20, 15))

CASES = {
    "one lane": Case(levels_tree((1,), (75,))),
    "a shared prefix, two kv heads": Case(SHARED, (8, 2)),
    "three levels": Case(DEEP),
    "nothing shared": Case(levels_tree((4,), (50,))),
    "unequal lengths and idle lanes": Case(grown(1)),
    "another random tree": Case(grown(2)),
    "no groups": Case(DEEP, (2, 2)),
    "groups of seven, fp16": Case(DEEP, (7, 1), 128, "float16"),
    "groups of eight, bf16": Case(DEEP, (8, 1), 64, "bfloat16"),
    "groups of sixteen": Case(SHARED, (16, 1), 256),
    "head_dim 96, bf16": Case(SHARED, (4, 1), 96, "bfloat16"),
    "head_dim 256, bf16": Case(SHARED, (4, 1), 256, "bfloat16"),
    "window": Case(DEEP, options={"window": 35}),
    "window of one token": Case(grown(3), options={"window": 1}),
    "soft-cap": Case(SHARED, options={"softcap": 1.5}),
    "scale": Case(SHARED, options={"scale": 0.3}),
    "all options, fp16": Case(
        grown(4), (8, 2), 64, "float16", {"window": 20, "softcap": 2.0, "scale": 0.2}
    ),
}


def padded(tree: Tree) -> Tree:
    """The tree with idle lanes, columns and blocks to the common size; the last lanes are idle."""
    tree = tree.padded(MAX_BLOCKS, BLOCKS)
    missing = LANES - len(tree.length)
    table = np.pad(tree.table, ((0, missing), (0, 0)), constant_values=-1)
    return Tree(table, np.pad(tree.length, (0, missing)), BLOCKS)


def operands(case: Case, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q and both pools."""
    (heads, kv_heads), dim = case.heads, case.head_dim
    rng = np.random.default_rng(seed)
    pool = (LAYERS, BLOCKS, kv_heads, 16, dim)
    shapes = ((LANES, heads, dim), pool, pool)
    q, k, v = (jnp.asarray(rng.normal(size=shape), case.dtype) for shape in shapes)
    return q, k, v


def small_tiles(
    lanes: int, num_heads: int, num_kv_heads: int, head_dim: int, itemsize: int
) -> TreeTiles:
    """Tiles of few lanes and keys, so that small trees have several of each kind."""
    narrow = max(16, 1 << (num_heads // num_kv_heads - 1).bit_length())
    return TreeTiles(
        wide_rows=2 * narrow,
        wide_keys=32,
        narrow_rows=narrow,
        narrow_keys=32,
        programs=4,
        wide_tile_cost=3,
        narrow_tile_cost=3,
        merge_rows=8,
        merge_pieces=2,
    )


def check(case: Case, compute: Callable[..., Any]) -> None:
    """Compares `compute(q, k, v, table, length, **options)` with dense float64."""
    tree = padded(case.tree)
    q, k, v = operands(case)
    got = compute(q, k, v, tree.table, tree.length, **case.options)
    out, lse = paged_oracle(
        wide(q)[:, None], wide(k), wide(v), LAYER, tree.table, tree.length - 1, **case.options
    )
    assert_close(got, (out[:, 0], lse[:, 0]), case.dtype)


class TreeAttentionSuite:
    """Against dense float64."""

    implementation: ClassVar[Implementation]
    unseen_value: ClassVar[float] = float("nan")
    """What may stand in the values where no lane reads."""

    def attend(self, q: Any, k: Any, v: Any, table: Any, length: Any, **options: Any) -> Any:
        return attend(q, k, v, table, length, policy=KernelPolicy(self.implementation), **options)

    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    def test_matches_dense_float64(self, case: Case) -> None:
        check(case, self.attend)

    def test_idle_lanes_alone_give_zeros(self) -> None:
        tree = padded(SHARED)
        out, lse = self.attend(*operands(Case(SHARED)), tree.table, np.zeros_like(tree.length))
        assert not np.asarray(out).any()
        assert np.isneginf(np.asarray(lse)).all()

    def test_what_no_lane_reads_does_not_matter(self) -> None:
        """NaN in every other block, in the other layer and beyond each lane's last token.

        The table has −1 in columns that no lane fills, which must not stand for block 0.
        """
        tree = padded(levels_tree((2, 6), (20, 9)))
        q, k, v = operands(Case(tree))
        held = np.zeros((BLOCKS, 16), bool)
        for row, length in zip(tree.table, tree.length, strict=True):
            position = np.arange(length)
            held[row[position // 16], position % 16] = True
        read = jnp.asarray(held)[:, None, :, None] & (jnp.arange(LAYERS) == LAYER).reshape(
            -1, 1, 1, 1, 1
        )
        clean = self.attend(q, k, v, tree.table, tree.length)
        k, v = jnp.where(read, k, jnp.nan), jnp.where(read, v, self.unseen_value)
        poisoned = self.attend(q, k, v, tree.table, tree.length)
        for got, want in zip(poisoned, clean, strict=True):
            np.testing.assert_array_equal(got, want)

    @pytest.mark.parametrize("pools_mapped", [False, True])
    def test_vmap_equals_a_loop(self, pools_mapped: bool) -> None:
        trees = [padded(grown(seed)) for seed in (5, 6)]
        table = jnp.stack([tree.table for tree in trees])
        length = jnp.stack([tree.length for tree in trees])
        q, k, v = (jnp.stack(pair) for pair in zip(*map(_draw, (5, 6)), strict=True))
        if not pools_mapped:
            k, v = k[0], v[0]
        pool = 0 if pools_mapped else None
        got = jax.jit(jax.vmap(self.attend, (0, pool, pool, 0, 0)))(q, k, v, table, length)
        for index in range(2):
            pools = (k[index], v[index]) if pools_mapped else (k, v)
            want = self.attend(q[index], *pools, table[index], length[index])
            for mapped, alone in zip(got, want, strict=True):
                np.testing.assert_allclose(mapped[index], alone, atol=1e-5)

    def test_nested_vmap_equals_a_loop(self) -> None:
        """Pools differ along the outer axis only, queries along the inner one only."""
        tree = padded(grown(7))
        (q, k, v), (other_q, other_k, other_v) = _draw(7), _draw(8)
        q, k, v = jnp.stack([q, other_q]), jnp.stack([k, other_k]), jnp.stack([v, other_v])
        inner = jax.vmap(self.attend, (0, None, None, None, None))
        outer = jax.vmap(inner, (None, 0, 0, None, None))
        got = jax.jit(outer)(q, k, v, tree.table, tree.length)
        for i in range(2):
            for j in range(2):
                want = self.attend(q[j], k[i], v[i], tree.table, tree.length)
                for mapped, alone in zip(got, want, strict=True):
                    np.testing.assert_allclose(mapped[i, j], alone, atol=1e-5)

    def test_one_plan_serves_every_layer(self) -> None:
        tree = padded(DEEP)
        q, k, v = operands(Case(DEEP))
        plan = jax.jit(make_plan, static_argnums=3, static_argnames="policy")(
            tree.table, tree.length, k, q.shape[1], policy=KernelPolicy(self.implementation)
        )
        for layer in range(LAYERS):
            got = tree_attention(
                q,
                k,
                v,
                layer,
                jnp.asarray(tree.table),
                jnp.asarray(tree.length),
                plan=plan,
                policy=KernelPolicy(self.implementation),
            )
            want = paged_oracle(
                wide(q)[:, None], wide(k), wide(v), layer, tree.table, tree.length - 1
            )
            assert_close(got, (want[0][:, 0], want[1][:, 0]), "float32")

    @pytest.mark.parametrize("mapped", [False, True])
    def test_the_layer_may_be_traced(self, mapped: bool) -> None:
        tree = padded(SHARED)
        q, k, v = operands(Case(SHARED))
        rows = jnp.asarray(tree.table), jnp.asarray(tree.length)
        policy = KernelPolicy(self.implementation)

        @jax.jit
        def of_layer(layer: jax.Array) -> Any:
            def compute(q: jax.Array) -> Any:
                return tree_attention(q, k, v, layer, *rows, policy=policy)

            if mapped:
                return jax.tree.map(lambda part: part[0], jax.vmap(compute)(q[None]))
            return compute(q)

        for layer in range(LAYERS):
            out, lse = paged_oracle(
                wide(q)[:, None], wide(k), wide(v), layer, tree.table, tree.length - 1
            )
            assert_close(of_layer(jnp.int32(layer)), (out[:, 0], lse[:, 0]), "float32")


@partial(jax.jit, static_argnames=("policy", "scale", "window", "softcap"))
def attend(q: Any, k: Any, v: Any, table: Any, length: Any, **options: Any) -> Any:
    """Tree attention of LAYER."""
    return tree_attention(q, k, v, LAYER, table, length, **options)


def _draw(seed: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    return operands(Case(SHARED), seed)
