"""Decoder definitions, Hugging Face configs and weights."""

from dendrite_jax.models.config import ModelConfig, RopeScaling
from dendrite_jax.models.decoder import Decoder
from dendrite_jax.models.pretrained import Pretrained, load

__all__ = [
    "Decoder",
    "ModelConfig",
    "Pretrained",
    "RopeScaling",
    "load",
]
