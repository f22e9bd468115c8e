"""A model shape so small that a benchmark of it is over at once."""

from __future__ import annotations

from dataclasses import replace

from dendrite_jax.benchmarks.harness.shapes import SHAPES

TINY = replace(
    SHAPES["small"],
    vocab_size=64,
    hidden_size=32,
    intermediate_size=32,
    num_layers=1,
    num_heads=2,
    num_kv_heads=1,
    head_dim=16,
)
