"""Decoder definitions, Hugging Face configs, weights and tokenizers."""

from dendrite_jax.models.config import ModelConfig, RopeScaling
from dendrite_jax.models.decoder import Decoder
from dendrite_jax.models.pretrained import Pretrained, load
from dendrite_jax.models.tokenizer import TextStream, Tokenizer

__all__ = [
    "Decoder",
    "ModelConfig",
    "Pretrained",
    "RopeScaling",
    "TextStream",
    "Tokenizer",
    "load",
]
