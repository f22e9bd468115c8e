"""Tree attention by plain XLA."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels import chunks
from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.kernels.tree_attention import make_plan, reference, tree_attention, xla
from kernels.tree_suite import LAYER, SHARED, Case, TreeAttentionSuite, operands, padded


class TestXla(TreeAttentionSuite):
    implementation = "xla"


class TestXlaInTurns(TreeAttentionSuite):
    """With tables wider than a turn, so that it loops and reads what lanes share once."""

    implementation = "xla"

    @pytest.fixture(autouse=True)
    def _narrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "MOST_COLUMNS", 2)

    def attend(self, *arrays: Any, **options: Any) -> Any:
        attend_anew = jax.jit(
            partial(tree_attention, policy=KernelPolicy("xla"), **options), static_argnums=3
        )
        return attend_anew(*arrays[:3], LAYER, *arrays[3:])


class TestReference(TreeAttentionSuite):
    implementation = "xla"

    def attend(self, q: Any, k: Any, v: Any, table: Any, length: Any, **options: Any) -> Any:
        return attend_reference(q, k, v, table, length, **options)


@partial(jax.jit, static_argnames=("scale", "window", "softcap"))
def attend_reference(
    q: Any, k: Any, v: Any, table: Any, length: Any, scale: float | None = None, **options: Any
) -> Any:
    """The specification, of LAYER."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return reference.tree_attention(q, k, v, LAYER, table, length, scale=scale, **options)


def test_the_default_on_a_cpu_is_plain_xla() -> None:
    tree = padded(SHARED)
    q, k, v = operands(Case(SHARED))
    arrays = jnp.asarray(tree.table), jnp.asarray(tree.length)
    default = tree_attention(q, k, v, LAYER, *arrays)
    named = tree_attention(q, k, v, LAYER, *arrays, policy=KernelPolicy("xla"))
    assert jnp.array_equal(default[0], named[0])
    assert make_plan(*arrays, k, q.shape[1]) is None


def test_a_wide_table_is_not_read_where_it_is_empty() -> None:
    """A loop of as many turns as the longest lane fills, also under `vmap`."""
    tree = padded(SHARED)
    q, k, v = operands(Case(SHARED))
    table = np.pad(tree.table, ((0, 0), (0, 4096)), constant_values=-1)

    def attend(length: jax.Array) -> Any:
        return tree_attention(q, k, v, LAYER, jnp.asarray(table), length)

    lengths = jnp.stack([tree.length, tree.length // 2])
    for function, argument in ((attend, lengths[0]), (jax.vmap(attend), lengths)):
        compiled = jax.jit(function).lower(argument).compile()
        # The blocks of all columns would take 12 * 4104 * 16 * 64 * 4 bytes, 200 MB.
        memory = compiled.memory_analysis()
        assert memory is not None
        assert memory.temp_size_in_bytes < 40e6
        got = compiled(argument)
    for index in range(2):
        want = attend_reference(q, k, v, tree.table, lengths[index])
        for mapped, alone in zip(got, want, strict=True):
            np.testing.assert_allclose(mapped[index], alone, atol=1e-5)


@pytest.mark.parametrize(("block", "end", "shared"), [(8, 48, 2), (7, 40, 2), (7, 48, 3)])
def test_a_column_is_shared_where_all_lanes_see_one_block_whole(
    block: int, end: int, shared: int
) -> None:
    table = jnp.array([[5, 3, 7, -1], [5, 3, block, -1], [-1] * 4, [5, 3, 7, 9]])
    ends = jnp.array([48, end, 0, 49])
    split = xla.split_columns(table, jnp.zeros_like(ends), ends, 16, shares=True)
    assert tuple(map(int, split)) == (0, 0, shared, 4)


@pytest.mark.parametrize(
    ("window", "expected"),
    [(None, (0, 0, 2, 4)), (35, (0, 1, 2, 4)), (20, (1, 2, 2, 4)), (1, (2, 3, 3, 4))],
)
def test_the_columns_that_all_lanes_see_whole(
    window: int | None, expected: tuple[int, ...]
) -> None:
    """48, 40 and 49 tokens, of which the first two blocks are common; and an idle lane."""
    table = jnp.array([[5, 3, 7, -1], [5, 3, 8, -1], [-1] * 4, [5, 3, 7, 9]])
    end = jnp.array([48, 40, 0, 49])
    first = jnp.maximum(end - (window or 49), 0)
    assert tuple(map(int, xla.split_columns(table, first, end, 16, shares=True))) == expected
    alone = xla.split_columns(table[:1], first[:1], end[:1], 16, shares=False)
    assert int(alone.shared().size) == 0
    read = alone.own().number(jnp.arange(int(alone.own().size)))
    assert read.tolist() == list(range(int(first[0]) // 16, 3))
