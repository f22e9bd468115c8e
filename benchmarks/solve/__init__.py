"""Puzzles a minute, beside the same search with transformers."""
