"""The stateful border: text in and out, input checks, compiled functions, streaming."""

from dendrite_jax.serving.compilation import enable_compilation_cache
from dendrite_jax.serving.engine import Completion, Engine

__all__ = ["Completion", "Engine", "enable_compilation_cache"]
