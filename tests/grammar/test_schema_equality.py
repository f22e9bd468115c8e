"""Compiled JSON schemas against llguidance, state by state."""

from __future__ import annotations

import pytest

from dendrite_jax.grammar.compiler import GrammarCompiler
from dendrite_jax.grammar.grammar import Grammar
from grammar.oracle import mismatches, schema_matcher
from grammar.schema_cases import SCHEMAS


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_state_allows_what_llguidance_allows(compiler: GrammarCompiler, name: str) -> None:
    grammar = compiler.compile(Grammar.from_json_schema(SCHEMAS[name]))
    assert mismatches(grammar, schema_matcher(SCHEMAS[name])) == []
