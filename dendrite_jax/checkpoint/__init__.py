"""Saving and restoring engine states with Orbax."""

from dendrite_jax.checkpoint.state import restore, save

__all__ = ["restore", "save"]
