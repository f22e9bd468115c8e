"""Paged prefill by the interpreted Triton kernel."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from dendrite_jax.kernels.dispatch import UnsupportedError
from dendrite_jax.kernels.paged_prefill import gpu, paged_prefill
from dendrite_jax.kernels.paged_prefill.shapes import PrefillTiles
from kernels.interpreter import interpreted  # noqa: F401
from kernels.prefill_suite import PagedPrefillSuite


def small_tiles(rows: int, head_dim: int, itemsize: int) -> PrefillTiles:
    """Tiles of few rows and keys, so that short prompts have several, whole and on the diagonal."""
    return PrefillTiles(rows=32, keys=32)


class TestTriton(PagedPrefillSuite):
    implementation = "triton"

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "prefill_tiles", small_tiles)


def test_refuses_what_the_kernel_lacks() -> None:
    pool = jnp.zeros((1, 4, 1, 16, 80))
    q, table, start = jnp.zeros((2, 3, 4, 80)), jnp.zeros((2, 2), int), jnp.zeros(2, int)
    with pytest.raises(UnsupportedError, match="head_dim 80: the kernel takes one of"):
        paged_prefill(q, pool, pool, 0, table, start, implementation="triton")
