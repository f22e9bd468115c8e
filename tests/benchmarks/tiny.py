"""A model shape so small that a benchmark of it is over at once."""

from __future__ import annotations

from dataclasses import replace

from dendrite_jax.benchmarks.harness.shapes import SHAPES
from dendrite_jax.models import AttentionSpec, LayerSpec, MlpSpec, ModelConfig


def tiny(layers: int = 1, head_dim: int = 16, windows: tuple[int | None, ...] = ()) -> ModelConfig:
    """Two heads on one kv head, width 32, 64 tokens; windows by layer, full without any."""
    specs = [
        LayerSpec(AttentionSpec(2, 1, head_dim, window=window), MlpSpec(32))
        for window in windows or (None,) * layers
    ]
    return replace(SHAPES["small"], vocab_size=64, hidden_size=32, layers=tuple(specs))


TINY = tiny()
