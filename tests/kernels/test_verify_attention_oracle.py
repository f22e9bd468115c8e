"""Verify attention by the interpreted Triton kernels of tree attention."""

from __future__ import annotations

import pytest

from dendrite_jax.kernels.tree_attention import gpu
from kernels.interpreter import interpreted  # noqa: F401
from kernels.tree_suite import small_tiles
from kernels.verify_suite import VerifyAttentionSuite


class TestTriton(VerifyAttentionSuite):
    implementation = "triton"

    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "tree_tiles", small_tiles)
