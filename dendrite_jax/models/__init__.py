"""The decoder, the families of models that it runs, and loading them."""

from dendrite_jax.models.config import (
    AttentionSpec,
    LayerSpec,
    MlpSpec,
    ModelConfig,
    Rope,
    RopeScaling,
)
from dendrite_jax.models.decoder import Decoder
from dendrite_jax.models.families import ModelConfigError, read_config
from dendrite_jax.models.pretrained import CheckpointWarning, Pretrained, load, load_params

__all__ = [
    "AttentionSpec",
    "CheckpointWarning",
    "Decoder",
    "LayerSpec",
    "MlpSpec",
    "ModelConfig",
    "ModelConfigError",
    "Pretrained",
    "Rope",
    "RopeScaling",
    "load",
    "load_params",
    "read_config",
]
