"""Tree attention by plain XLA."""

from __future__ import annotations

import jax.numpy as jnp

from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.kernels.tree_attention import make_plan, tree_attention
from kernels.tree_suite import LAYER, SHARED, Case, TreeAttentionSuite, operands, padded


class TestXla(TreeAttentionSuite):
    implementation = "xla"


def test_the_default_on_a_cpu_is_plain_xla() -> None:
    tree = padded(SHARED)
    q, k, v = operands(Case(SHARED))
    arrays = jnp.asarray(tree.table), jnp.asarray(tree.length)
    default = tree_attention(q, k, v, LAYER, *arrays)
    named = tree_attention(q, k, v, LAYER, *arrays, policy=KernelPolicy("xla"))
    assert jnp.array_equal(default[0], named[0])
    assert make_plan(*arrays, k, q.shape[1]) is None
