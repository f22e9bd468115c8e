"""Verify attention by plain XLA, and the masks of draft trees."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.verify_attention import ancestor_mask
from kernels.verify_suite import VerifyAttentionSuite, ancestors, parents


class TestXla(VerifyAttentionSuite):
    implementation = "xla"


@pytest.mark.parametrize("nodes", [1, 2, 17, 64])
def test_ancestors_of_random_drafts(nodes: int) -> None:
    parent = parents(nodes, nodes)
    np.testing.assert_array_equal(ancestor_mask(jnp.asarray(parent)), ancestors(parent))


def test_ancestors_of_a_chain_are_all_before() -> None:
    mask = ancestor_mask(jnp.arange(-1, 63)[None])
    np.testing.assert_array_equal(mask[0], np.tri(64, dtype=bool))
