"""The tree benchmark's books with the plans of the Triton kernels."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax.numpy as jnp
import numpy as np

from benchmarks.tiny import tiny
from dendrite_jax import cache as kv
from dendrite_jax.benchmarks.tree.bookkeeping import HollowDecoder
from dendrite_jax.cache import CacheConfig
from dendrite_jax.kernels.policy import KernelPolicy


def test_a_hollow_decoder_keeps_its_plan_while_the_tables_stay() -> None:
    config = tiny(head_dim=64)
    hollow = HollowDecoder(
        jnp.arange(64.0), config, jnp.dtype("float32"), policy=KernelPolicy("triton")
    )
    pool = kv.init(CacheConfig(8, 2, 64), hollow.kv_shape, dtype=hollow.dtype).pool
    plan = partial(hollow.plan, pool)
    table, length = jnp.array([[0, 1], [0, 2]]), jnp.array([20, 20])
    made = plan(table, length)
    assert made
    marked = dataclasses.replace(made, period=made.period + 1)
    kept = plan(table, length + 1, marked)
    anew = plan(table + 3, length, marked)
    assert kept
    assert anew
    np.testing.assert_array_equal(kept.period, marked.period)
    np.testing.assert_array_equal(anew.period, made.period)
    assert hollow.replace(plans=False).plan(pool, table, length) is None
