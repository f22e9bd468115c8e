"""Fixtures of the grammar tests."""

from __future__ import annotations

import pytest

from dendrite_jax.grammar.compiler import GrammarCompiler
from grammar.vocabularies import byte_level


@pytest.fixture(scope="session")
def compiler() -> GrammarCompiler:
    """A compiler for the byte-level vocabulary; compiling does not change it."""
    return GrammarCompiler(byte_level(), use_cache=False)
