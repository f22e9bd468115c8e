"""Prefill, decode steps, sampling and generation over the paged cache."""
