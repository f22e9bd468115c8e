"""Compiled JSON schemas against llguidance, state by state, but for the differences named."""

from __future__ import annotations

import pytest

from dendrite_jax.grammar.compiler import GrammarCompiler
from dendrite_jax.grammar.grammar import Grammar
from grammar.excuses import excuse_for
from grammar.oracle import mismatches, schema_matcher
from grammar.schema_cases import SCHEMAS
from grammar.walks import walk_beside

WALKS = 5
FREE_STEPS = 20


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_state_allows_what_llguidance_allows(compiler: GrammarCompiler, name: str) -> None:
    grammar = compiler.compile(Grammar.from_json_schema(SCHEMAS[name]))
    assert mismatches(grammar, schema_matcher(SCHEMAS[name]), excuse_for(name)) == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_random_walks_stay_beside_llguidance_to_the_end(
    compiler: GrammarCompiler, name: str
) -> None:
    grammar = compiler.compile(Grammar.from_json_schema(SCHEMAS[name]))
    root = schema_matcher(SCHEMAS[name])
    for seed in range(WALKS):
        assert walk_beside(grammar, root, FREE_STEPS, seed, excuse_for(name)) == []
