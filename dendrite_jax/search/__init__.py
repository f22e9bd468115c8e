"""Searches: pure functions over the engine, batched over problems."""
