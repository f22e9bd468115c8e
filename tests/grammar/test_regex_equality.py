"""Compiled regexes against llguidance, state by state."""

from __future__ import annotations

import pytest

from dendrite_jax.grammar.compiler import GrammarCompiler
from dendrite_jax.grammar.grammar import Grammar
from grammar.oracle import mismatches, regex_matcher
from grammar.regex_cases import REGEXES
from grammar.walks import walk_beside

WALKS = 5
FREE_STEPS = 20


@pytest.mark.parametrize("pattern", REGEXES)
def test_every_state_allows_what_llguidance_allows(compiler: GrammarCompiler, pattern: str) -> None:
    grammar = compiler.compile(Grammar.from_regex(pattern))
    assert mismatches(grammar, regex_matcher(pattern)) == []


@pytest.mark.parametrize("pattern", REGEXES)
def test_random_walks_stay_beside_llguidance_to_the_end(
    compiler: GrammarCompiler, pattern: str
) -> None:
    grammar = compiler.compile(Grammar.from_regex(pattern))
    root = regex_matcher(pattern)
    for seed in range(WALKS):
        assert walk_beside(grammar, root, FREE_STEPS, seed) == []
