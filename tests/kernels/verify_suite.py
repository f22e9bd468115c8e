"""What verify attention must do, whatever implements it; subclasses name an implementation."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.policy import Implementation, KernelPolicy
from dendrite_jax.kernels.verify_attention import verify_attention
from kernels.dense import assert_close, cached, dense_attention, wide

LAYERS, LAYER = 2, 1
BRANCHES, MAX_BLOCKS, BLOCKS = 3, 4, 10
TABLE = np.array([[3, 7, 1, -1], [3, 7, 5, -1], [-1, -1, -1, -1]], np.int32)
LENGTH = np.array([39, 35, 0], np.int32)
"""Two branches that share two blocks, and one without a prefix."""


@dataclass(frozen=True)
class Case:
    """Draft nodes a branch, a shape, and options."""

    nodes: int = 5
    heads: tuple[int, int] = (4, 1)
    head_dim: int = 64
    dtype: str = "float32"
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "five nodes": Case(),
    "one node": Case(1),
    "as many nodes as are taken": Case(64, (1, 1)),
    "two kv heads, bf16": Case(5, (8, 2), 64, "bfloat16"),
    "groups of seven, fp16": Case(3, (7, 1), 128, "float16"),
    "soft-cap and scale": Case(options={"softcap": 1.5, "scale": 0.3}),
}


class Operands(NamedTuple):
    """Arrays of one call, in the order of its parameters, table and length left out."""

    q: jax.Array
    k: jax.Array
    v: jax.Array
    seen: jax.Array
    k_pool: jax.Array
    v_pool: jax.Array


def parents(nodes: int, seed: int = 0) -> np.ndarray:
    """Random draft trees: each node continues an earlier one, or the branch."""
    rng = np.random.default_rng(seed)
    return np.stack([[rng.integers(-1, node) for node in range(nodes)] for _ in range(BRANCHES)])


def ancestors(parent: np.ndarray) -> np.ndarray:
    """The mask by walking up from every node."""
    seen = np.zeros((*parent.shape, parent.shape[1]), bool)
    for branch, node in np.ndindex(parent.shape):
        at = node
        while at >= 0:
            seen[branch, node, at] = True
            at = parent[branch, at]
    return seen


def operands(case: Case, seed: int = 0) -> Operands:
    """Random arrays and draft trees."""
    (heads, kv_heads), dim, nodes = case.heads, case.head_dim, case.nodes
    rng = np.random.default_rng(seed)
    draft = (BRANCHES, nodes, kv_heads, dim)
    pool = (LAYERS, BLOCKS, kv_heads, 16, dim)
    shapes = ((BRANCHES, nodes, heads, dim), draft, draft, pool, pool)
    q, k, v, k_pool, v_pool = (jnp.asarray(rng.normal(size=s), case.dtype) for s in shapes)
    return Operands(q, k, v, jnp.asarray(ancestors(parents(nodes, seed))), k_pool, v_pool)


def oracle(arrays: Operands, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Dense attention of every branch."""
    q, k, v, _, k_pool, v_pool = map(wide, arrays)
    out = np.zeros(q.shape)
    lse = np.zeros(q.shape[:3])
    for branch, length in enumerate(LENGTH):
        keys, values = (
            np.concatenate([cached(pool, LAYER, TABLE[branch], length), draft[branch]])
            for pool, draft in ((k_pool, k), (v_pool, v))
        )
        seen = np.pad(np.asarray(arrays.seen[branch]), ((0, 0), (length, 0)), constant_values=True)
        out[branch], lse[branch] = dense_attention(q[branch], keys, values, seen, **options)
    return out, lse


@partial(jax.jit, static_argnames=("policy", "scale", "softcap"))
def attend(
    q: Any, k: Any, v: Any, seen: Any, k_pool: Any, v_pool: Any, table: Any, length: Any, **to: Any
) -> Any:
    """Verify attention of LAYER."""
    return verify_attention(q, k, v, seen, k_pool, v_pool, LAYER, table, length, **to)


class VerifyAttentionSuite:
    """Against dense float64."""

    implementation: ClassVar[Implementation]

    def attend(self, *arrays: Any, **options: Any) -> Any:
        return attend(*arrays, TABLE, LENGTH, policy=KernelPolicy(self.implementation), **options)

    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    def test_matches_dense_float64(self, case: Case) -> None:
        arrays = operands(case)
        got = self.attend(*arrays, **case.options)
        assert_close(got, oracle(arrays, **case.options), case.dtype)

    def test_a_node_that_sees_nothing_gives_zeros(self) -> None:
        arrays = operands(Case())
        blind = arrays._replace(
            seen=arrays.seen.at[2, 1].set(False)
        )  # of the branch with no prefix
        out, lse = (np.asarray(part) for part in self.attend(*blind))
        assert not out[2, 1].any()
        assert np.isneginf(lse[2, 1]).all()
        want = oracle(arrays)
        np.testing.assert_allclose(out[2, 0], want[0][2, 0], atol=1e-5)

    def test_vmap_equals_a_loop(self) -> None:
        """Drafts differ between problems, the pools do not."""
        first, second = operands(Case(3), 1), operands(Case(3), 2)
        drafts = [jnp.stack(pair) for pair in zip(first[:4], second[:4], strict=True)]
        pools = first[4:]
        got = jax.jit(jax.vmap(self.attend, (0, 0, 0, 0, None, None)))(*drafts, *pools)
        for index in range(2):
            want = self.attend(*(part[index] for part in drafts), *pools)
            for mapped, alone in zip(got, want, strict=True):
                np.testing.assert_allclose(mapped[index], alone, atol=1e-5)
