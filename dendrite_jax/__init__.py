"""Dendrite-JAX: a functional language-model inference engine for tree search."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("dendrite-jax")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "0.0.0"
