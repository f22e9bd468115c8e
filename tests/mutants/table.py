"""All mutations."""

from __future__ import annotations

from mutants import cache, engine, grammar, kernels, models, search

MUTANTS = (
    *cache.MUTANTS,
    *engine.MUTANTS,
    *search.MUTANTS,
    *grammar.MUTANTS,
    *kernels.MUTANTS,
    *models.MUTANTS,
)
