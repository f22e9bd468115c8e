"""Paged prefill by the interpreted Triton kernel."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.dispatch import UnsupportedError
from dendrite_jax.kernels.paged_prefill import gpu, paged_prefill
from dendrite_jax.kernels.paged_prefill.shapes import PrefillTiles
from dendrite_jax.kernels.policy import KernelPolicy
from kernels.dense import assert_close, paged_oracle, wide
from kernels.interpreter import interpreted  # noqa: F401
from kernels.prefill_suite import (
    LAYER,
    MAX_BLOCKS,
    START,
    Case,
    PagedPrefillSuite,
    operands,
    tables,
)


def small_tiles(rows: int, head_dim: int, itemsize: int) -> PrefillTiles:
    """Tiles of few rows and keys, so that short prompts have several, whole and on the diagonal."""
    return PrefillTiles(rows=32, keys=32)


class TestTriton(PagedPrefillSuite):
    implementation = "triton"

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "prefill_tiles", small_tiles)


@pytest.mark.parametrize("queries", [3, 12, 40])
def test_tuned_tiles_match_dense_float64(queries: int) -> None:
    """As many rows as each of the tuned tiles is for."""
    start = np.minimum(START, 16 * MAX_BLOCKS - queries)
    table = tables(16 * MAX_BLOCKS - int(START.max()))
    q, k, v = operands(Case(queries))
    compute = jax.jit(partial(paged_prefill, policy=KernelPolicy("triton")), static_argnums=3)
    got = compute(q, k, v, LAYER, table, start)
    assert_close(got, paged_oracle(wide(q), wide(k), wide(v), LAYER, table, start), "float32")


def test_refuses_what_the_kernel_lacks() -> None:
    pool = jnp.zeros((1, 4, 1, 16, 80))
    q, table, start = jnp.zeros((2, 3, 4, 80)), jnp.zeros((2, 2), int), jnp.zeros(2, int)
    with pytest.raises(UnsupportedError, match="head_dim 80: the kernel takes one of"):
        paged_prefill(q, pool, pool, 0, table, start, policy=KernelPolicy("triton"))
