"""What paged prefill must do, whatever implements it; subclasses name an implementation."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.paged_prefill import paged_prefill
from dendrite_jax.kernels.policy import Implementation, KernelPolicy
from kernels.dense import assert_close, paged_oracle, wide

LAYERS, LAYER = 2, 1
ROWS, MAX_BLOCKS, BLOCKS = 3, 6, 24
START = np.array([0, 37, 16], np.int32)
"""A prompt from its beginning, one within a block, one at a block's border."""


@dataclass(frozen=True)
class Case:
    """New tokens a row, a shape, and options."""

    queries: int = 20
    heads: tuple[int, int] = (4, 1)
    head_dim: int = 64
    dtype: str = "float32"
    options: dict[str, Any] = field(default_factory=dict)


CASES = {
    "twenty tokens": Case(),
    "three tokens, two kv heads": Case(3, (8, 2)),
    "one token": Case(1),
    "no groups": Case(heads=(2, 2)),
    "groups of seven, fp16": Case(9, (7, 1), 128, "float16"),
    "groups of eight, bf16": Case(9, (8, 1), 64, "bfloat16"),
    "groups of sixteen": Case(9, (16, 1)),
    "head_dim 96, bf16": Case(head_dim=96, dtype="bfloat16"),
    "head_dim 256, fp16": Case(head_dim=256, dtype="float16"),
    "window": Case(options={"window": 10}),
    "soft-cap": Case(options={"softcap": 1.5}),
    "scale": Case(options={"scale": 0.3}),
}


def tables(tokens: int) -> np.ndarray:
    """Rows of random blocks for START + tokens; the last two rows share their first block."""
    table = np.full((ROWS, MAX_BLOCKS), -1, np.int32)
    blocks = iter(np.random.default_rng(1).permutation(BLOCKS))
    for row, length in enumerate(START + tokens):
        for column in range(-(-length // 16)):
            table[row, column] = next(blocks)
    table[2, 0] = table[1, 0]
    return table


def operands(case: Case, seed: int = 0) -> tuple[jax.Array, jax.Array, jax.Array]:
    """q and both pools."""
    (heads, kv_heads), dim = case.heads, case.head_dim
    rng = np.random.default_rng(seed)
    pool = (LAYERS, BLOCKS, kv_heads, 16, dim)
    shapes = ((ROWS, case.queries, heads, dim), pool, pool)
    q, k, v = (jnp.asarray(rng.normal(size=shape), case.dtype) for shape in shapes)
    return q, k, v


@partial(jax.jit, static_argnames=("policy", "scale", "window", "softcap"))
def attend(q: Any, k: Any, v: Any, *rows: Any, **options: Any) -> Any:
    """Paged prefill of LAYER."""
    return paged_prefill(q, k, v, LAYER, *rows, **options)


class PagedPrefillSuite:
    """Against dense float64."""

    implementation: ClassVar[Implementation]

    def attend(self, *arrays: Any, **options: Any) -> Any:
        return attend(*arrays, policy=KernelPolicy(self.implementation), **options)

    @pytest.mark.parametrize("case", CASES.values(), ids=CASES)
    def test_matches_dense_float64(self, case: Case) -> None:
        q, k, v = operands(case)
        table = tables(case.queries)
        got = self.attend(q, k, v, table, START, **case.options)
        want = paged_oracle(wide(q), wide(k), wide(v), LAYER, table, START, **case.options)
        assert_close(got, want, case.dtype)

    def test_chunks_of_a_prompt_equal_the_whole(self) -> None:
        case = Case(20)
        q, k, v = operands(case)
        table = tables(case.queries)
        whole = self.attend(q, k, v, table, START)
        parts = [self.attend(q[:, i : i + 5], k, v, table, START + i) for i in range(0, 20, 5)]
        for got, want in zip(zip(*parts, strict=True), whole, strict=True):
            np.testing.assert_allclose(jnp.concatenate(got, axis=1), want, atol=1e-5)

    def test_a_row_without_blocks_gives_zeros(self) -> None:
        case = Case(3)
        q, k, v = operands(case)
        table = tables(case.queries)
        table[0] = -1
        out, lse = (np.asarray(part) for part in self.attend(q, k, v, table, START))
        assert not out[0].any()
        assert np.isneginf(lse[0]).all()
        assert np.isfinite(lse[1:]).all()

    def test_later_tokens_and_other_blocks_do_not_matter(self) -> None:
        """NaN in the other layer, beyond each row's last token, and in blocks of no row."""
        case = Case(3)
        q, k, v = operands(case)
        table = tables(case.queries)
        read = np.zeros((LAYERS, BLOCKS, 1, 16, 1), bool)
        for row, length in zip(table, START + case.queries, strict=True):
            position = np.arange(length)
            read[LAYER, row[position // 16], 0, position % 16] = True
        clean = self.attend(q, k, v, table, START)
        poisoned = self.attend(
            q, jnp.where(read, k, jnp.nan), jnp.where(read, v, jnp.nan), table, START
        )
        for got, want in zip(poisoned, clean, strict=True):
            np.testing.assert_array_equal(got, want)

    def test_padding_sees_no_more_than_a_row_holds(self) -> None:
        """Rows of 3, 7 and 20 real tokens; NaN beyond them, in blocks that the rows have."""
        case = Case()
        q, k, v = operands(case)
        table = tables(case.queries)
        count = np.array([3, 7, 20], np.int32)
        read = np.zeros((LAYERS, BLOCKS, 1, 16, 1), bool)
        for row, length in zip(table, START + count, strict=True):
            position = np.arange(length)
            read[LAYER, row[position // 16], 0, position % 16] = True
        k, v = jnp.where(read, k, jnp.nan), jnp.where(read, v, jnp.nan)
        got = self.attend(q, k, v, table, START, START + count)
        assert all(np.isfinite(np.asarray(part)).all() for part in got)
        for row, real in enumerate(count):
            want = paged_oracle(
                wide(q)[row : row + 1, :real],
                wide(k),
                wide(v),
                LAYER,
                table[row : row + 1],
                START[row : row + 1],
            )
            one = tuple(part[row : row + 1, :real] for part in got)
            assert_close(one, want, case.dtype)

    @pytest.mark.parametrize("mapped", [False, True])
    def test_the_layer_may_be_traced(self, mapped: bool) -> None:
        case = Case(3)
        q, k, v = operands(case)
        table = tables(case.queries)
        rows = jnp.asarray(table), jnp.asarray(START)
        policy = KernelPolicy(self.implementation)

        @jax.jit
        def of_layer(layer: jax.Array) -> Any:
            def compute(q: jax.Array) -> Any:
                return paged_prefill(q, k, v, layer, *rows, policy=policy)

            if mapped:
                return jax.tree.map(lambda part: part[0], jax.vmap(compute)(q[None]))
            return compute(q)

        for layer in range(LAYERS):
            want = paged_oracle(wide(q), wide(k), wide(v), layer, table, START)
            assert_close(of_layer(jnp.int32(layer)), want, case.dtype)

    @pytest.mark.parametrize("pools_mapped", [False, True])
    def test_vmap_equals_a_loop(self, pools_mapped: bool) -> None:
        case = Case(3)
        pairs = zip(operands(case, 1), operands(case, 2), strict=True)
        q, k, v = (jnp.stack(pair) for pair in pairs)
        if not pools_mapped:
            k, v = k[0], v[0]
        table, start = jnp.asarray(tables(case.queries)), jnp.stack([START, START // 2])
        pool = 0 if pools_mapped else None
        got = jax.jit(jax.vmap(self.attend, (0, pool, pool, None, 0)))(q, k, v, table, start)
        for index in range(2):
            pools = (k[index], v[index]) if pools_mapped else (k, v)
            want = self.attend(q[index], *pools, table, start[index])
            for mapped, alone in zip(got, want, strict=True):
                np.testing.assert_allclose(mapped[index], alone, atol=1e-5)

    def test_nested_vmap_equals_a_loop(self) -> None:
        """Pools differ along the outer axis only, queries along the inner one only."""
        case = Case(3)
        pairs = zip(operands(case, 3), operands(case, 4), strict=True)
        q, k, v = (jnp.stack(pair) for pair in pairs)
        table = tables(case.queries)
        inner = jax.vmap(self.attend, (0, None, None, None, None))
        got = jax.jit(jax.vmap(inner, (None, 0, 0, None, None)))(q, k, v, table, START)
        for i in range(2):
            for j in range(2):
                want = self.attend(q[j], k[i], v[i], table, START)
                for mapped, alone in zip(got, want, strict=True):
                    np.testing.assert_allclose(mapped[i, j], alone, atol=1e-5)
