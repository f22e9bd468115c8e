"""Regexes against Python's `re.fullmatch`, by brute force over short texts."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dendrite_jax.grammar.compiler import byte_automaton
from dendrite_jax.grammar.grammar import Grammar

ALPHABET = "ab\né"
TEXTS = [
    "".join(text) for length in range(6) for text in itertools.product(ALPHABET, repeat=length)
]

ATOMS = st.sampled_from(
    ["a", "b", "é", ".", "[ab]", "[^a]", "\\n", "[^\\n]", "()", "[a-é]", "\\w", "\\s"]
)


def _repeated(body: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    counts = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "*?", "{1,3}?"])
    return st.builds(lambda atom, count: f"(?:{atom}){count}", body, counts)


PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("".join, st.lists(inner, max_size=3)),
        st.builds(
            lambda options: f"({'|'.join(options)})", st.lists(inner, min_size=1, max_size=3)
        ),
        _repeated(inner),
        st.builds(lambda body: f"(?s:{body})", inner),
    ),
    max_leaves=6,
)


def _assert_same_language(pattern: str) -> None:
    dfa = byte_automaton(Grammar.from_regex(pattern))
    compiled = re.compile(pattern, re.ASCII)
    for text in TEXTS:
        expected = compiled.fullmatch(text) is not None
        assert dfa.matches(text.encode()) == expected, (pattern, text)


@given(PATTERNS)
def test_generated_regexes_match_what_python_matches(pattern: str) -> None:
    _assert_same_language(pattern)


def test_empty_bodies_are_repeated_at_no_cost() -> None:
    """Python would count to ten thousand millions."""
    dfa = byte_automaton(Grammar.from_regex("(?:(?:){99999}){99999}a"))
    assert [text for text in TEXTS if dfa.matches(text.encode())] == ["a"]


@pytest.mark.parametrize(
    "pattern", ["^a|b$", "(^|a)b", "a(b|$)", "^^a$$", "(^a)?b", "(?:^a|b)$", "a^b", "a$b|a", "^"]
)
def test_anchors_hold_at_the_ends_only(pattern: str) -> None:
    _assert_same_language(pattern)
