"""Dendrite-JAX: a functional language-model inference engine for tree search."""
