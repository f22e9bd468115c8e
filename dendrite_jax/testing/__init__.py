"""Models and oracles that tests and examples compute by hand."""

from dendrite_jax.testing.bigram import BigramModel

__all__ = ["BigramModel"]
