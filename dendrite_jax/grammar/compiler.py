"""Compiles grammars for one vocabulary."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.automata.dfa_algebra import regex_dfa, texts_dfa
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES
from dendrite_jax.grammar.automata.regex_parser import parse_regex
from dendrite_jax.grammar.errors import GrammarError, UnboundedRecursionError
from dendrite_jax.grammar.grammar import Grammar, GrammarKind
from dendrite_jax.grammar.json_schema.compile import schema_dfa
from dendrite_jax.grammar.lazy.llguidance_matcher import MatcherFactory
from dendrite_jax.grammar.table.compiled import CompiledGrammar, pack
from dendrite_jax.grammar.table.token_table import DEFAULT_MAX_BYTES, build_token_table
from dendrite_jax.grammar.table.vocabulary import default_cache_dir, load_or_build_trie


class Vocabulary(Protocol):
    """What the compiler needs of a tokenizer."""

    @property
    def token_bytes(self) -> Sequence[bytes | None]:
        """The bytes each token adds to a text; None for special and unused ids."""

    @property
    def eos_ids(self) -> Sequence[int]:
        """The tokens that end a text."""


class GrammarCompiler:
    """Compiles grammars for one tokenizer; keep one per tokenizer, it holds the vocabulary trie.

    Attributes:
        token_bytes: for each of `vocab_size` tokens its bytes, None for those without.
        eos_ids: the tokens that end a text, ascending.
        trie: the vocabulary's byte trie.
    """

    def __init__(
        self,
        tokenizer: Vocabulary,
        *,
        vocab_size: int | None = None,
        eos_ids: Sequence[int] | None = None,
        cache_dir: Path | None = None,
        use_cache: bool = True,
    ) -> None:
        """Builds the trie, or reads it from the cache.

        Args:
            vocab_size: the width of the model's logits, where it is padded beyond the tokenizer's
                vocabulary; the ids beyond are never allowed.
            eos_ids: the tokens that end a text, where the tokenizer's are not meant.
            cache_dir: where tries are cached; by default the user's cache directory.
            use_cache: whether to read and write that cache.

        Raises:
            ValueError: the vocabulary is empty, `vocab_size` is below its size, or an
                end-of-sequence id is missing or outside it.
        """
        token_bytes = list(tokenizer.token_bytes)
        size = len(token_bytes) if vocab_size is None else vocab_size
        if size < max(len(token_bytes), 1):
            raise ValueError(f"vocab_size is {size}; the tokenizer has {len(token_bytes)} tokens")
        eos = sorted(set(tokenizer.eos_ids if eos_ids is None else eos_ids))
        if not eos:
            raise ValueError("eos_ids is empty; a grammar needs a token that ends the text")
        if eos[0] < 0 or eos[-1] >= size:
            raise ValueError(f"eos_ids {eos} are outside the vocabulary [0, {size})")
        self.eos_ids = tuple(eos)
        self.token_bytes = token_bytes + [None] * (size - len(token_bytes))
        for token in eos:
            # What ends a text does not spell a part of it.
            self.token_bytes[token] = None
        directory = (cache_dir or default_cache_dir()) if use_cache else None
        self.trie = load_or_build_trie(self.token_bytes, directory)

    @property
    def vocab_size(self) -> int:
        """The number of tokens, padding included."""
        return len(self.token_bytes)

    @functools.cached_property
    def matchers(self) -> MatcherFactory:
        """llguidance over this vocabulary, for the grammars that have no table."""
        return MatcherFactory(self.token_bytes, self.eos_ids)

    def compile(
        self,
        grammar: Grammar,
        max_recursion_depth: int | None = None,
        max_states: int = DEFAULT_MAX_STATES,
        max_bytes: int = DEFAULT_MAX_BYTES,
    ) -> CompiledGrammar:
        """The grammar as arrays.

        Args:
            max_recursion_depth: how often a recursive definition of a schema, or the "anything" of
                an open schema, may occur inside itself; 0 allows it once and never inside.
            max_states: the largest byte automaton.
            max_bytes: the most that the table, and the masks, may each take.

        Raises:
            UnboundedRecursionError: a recursive grammar without `max_recursion_depth`, or Lark.
            TooManyStatesError: a budget is too small.
            GrammarError: the grammar is invalid or not supported, or accepts no text, or none that
                this vocabulary can spell.
        """
        dfa = byte_automaton(grammar, max_recursion_depth, max_states)
        table = build_token_table(dfa, self.trie, max_bytes)
        return pack(table, self.eos_ids, max_bytes)


def byte_automaton(
    grammar: Grammar,
    max_recursion_depth: int | None = None,
    max_states: int = DEFAULT_MAX_STATES,
) -> Dfa:
    """The minimal automaton of the grammar's texts in UTF-8; see `GrammarCompiler.compile`."""
    if grammar.kind is GrammarKind.LARK:
        raise UnboundedRecursionError(
            "a Lark grammar has no finite table; it runs on the lazy path (LazyGrammar)"
        )
    if max_recursion_depth is not None and max_recursion_depth < 0:
        raise GrammarError(f"max_recursion_depth is {max_recursion_depth}; it must be at least 0")
    try:
        if grammar.kind is GrammarKind.REGEX:
            return regex_dfa(parse_regex(grammar.source), max_states)
        if grammar.kind is GrammarKind.CHOICE:
            return texts_dfa([text.encode() for text in json.loads(grammar.source)], max_states)
        return schema_dfa(json.loads(grammar.source), max_recursion_depth, max_states)
    except RecursionError as exc:
        raise GrammarError(f"the {grammar.kind.value} is nested too deeply") from exc
