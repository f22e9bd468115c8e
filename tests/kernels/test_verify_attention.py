"""Verify attention by plain XLA, and the masks of draft trees."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels import chunks
from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.kernels.verify_attention import ancestor_mask, reference, verify_attention
from kernels.verify_suite import LAYER, LENGTH, TABLE, VerifyAttentionSuite, ancestors, parents


class TestXla(VerifyAttentionSuite):
    implementation = "xla"


class TestXlaInTurns(VerifyAttentionSuite):
    """With tables wider than a turn, so that it loops and reads what branches share once."""

    implementation = "xla"

    @pytest.fixture(autouse=True)
    def _narrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "MOST_COLUMNS", 2)

    def attend(self, *arrays: Any, **options: Any) -> Any:
        attend_anew = jax.jit(
            partial(verify_attention, policy=KernelPolicy("xla"), **options), static_argnums=6
        )
        return attend_anew(*arrays, LAYER, TABLE, LENGTH)


class TestReference(VerifyAttentionSuite):
    implementation = "xla"

    def attend(self, *arrays: Any, **options: Any) -> Any:
        return attend_reference(*arrays, TABLE, LENGTH, **options)


@partial(jax.jit, static_argnames=("scale", "softcap"))
def attend_reference(
    q: Any, k: Any, v: Any, seen: Any, k_pool: Any, v_pool: Any, *rows: Any, **options: Any
) -> Any:
    """The specification, of LAYER."""
    options = {"scale": q.shape[-1] ** -0.5, **options}
    return reference.verify_attention(q, k, v, seen, k_pool, v_pool, LAYER, *rows, **options)


@pytest.mark.parametrize("nodes", [1, 2, 17, 64])
def test_ancestors_of_random_drafts(nodes: int) -> None:
    parent = parents(nodes, nodes)
    np.testing.assert_array_equal(ancestor_mask(jnp.asarray(parent)), ancestors(parent))


def test_ancestors_of_a_chain_are_all_before() -> None:
    mask = ancestor_mask(jnp.arange(-1, 63)[None])
    np.testing.assert_array_equal(mask[0], np.tri(64, dtype=bool))
