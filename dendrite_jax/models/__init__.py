"""Decoder definitions, Hugging Face configs, weights and tokenizers."""
