"""Paged prefill by plain XLA."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import pytest

from dendrite_jax.kernels import chunks
from dendrite_jax.kernels.paged_prefill import paged_prefill, reference
from dendrite_jax.kernels.policy import KernelPolicy
from kernels.prefill_suite import LAYER, PagedPrefillSuite


class TestXla(PagedPrefillSuite):
    implementation = "xla"


class TestXlaInTurns(PagedPrefillSuite):
    """With tables wider than a turn, so that it loops."""

    implementation = "xla"

    @pytest.fixture(autouse=True)
    def _narrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "MOST_COLUMNS", 2)

    def attend(self, *arrays: Any, **options: Any) -> Any:
        attend_anew = jax.jit(
            partial(paged_prefill, policy=KernelPolicy("xla"), **options), static_argnums=3
        )
        return attend_anew(*arrays[:3], LAYER, *arrays[3:])


class TestReference(PagedPrefillSuite):
    implementation = "xla"

    def attend(self, q: Any, k: Any, v: Any, *rows: Any, **options: Any) -> Any:
        return attend_reference(q, k, v, *rows, **options)


@partial(jax.jit, static_argnames=("scale", "window", "softcap"))
def attend_reference(
    q: Any, k: Any, v: Any, *rows: Any, scale: float | None = None, **options: Any
) -> Any:
    """The specification, of LAYER."""
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return reference.paged_prefill(q, k, v, LAYER, *rows, scale=scale, **options)
