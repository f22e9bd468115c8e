"""Compiled regexes against llguidance, state by state."""

from __future__ import annotations

import pytest

from dendrite_jax.grammar.compiler import GrammarCompiler
from dendrite_jax.grammar.grammar import Grammar
from grammar.oracle import mismatches, regex_matcher
from grammar.regex_cases import REGEXES


@pytest.mark.parametrize("pattern", REGEXES)
def test_every_state_allows_what_llguidance_allows(compiler: GrammarCompiler, pattern: str) -> None:
    grammar = compiler.compile(Grammar.from_regex(pattern))
    assert mismatches(grammar, regex_matcher(pattern)) == []
