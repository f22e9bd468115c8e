"""Text to tokens and back."""

from dendrite_jax.text.tokenizer import TextStream, Tokenizer, TokenizerError

__all__ = ["TextStream", "Tokenizer", "TokenizerError"]
