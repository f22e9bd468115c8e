"""Files on disk: Hugging Face model folders, and saved states."""

from dendrite_jax.checkpoints.states import restore, save

__all__ = ["restore", "save"]
