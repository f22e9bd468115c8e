"""The automata of JSON strings."""

from __future__ import annotations

import functools

import numpy as np

from dendrite_jax.grammar.automata.charset import ANY
from dendrite_jax.grammar.automata.dfa import DEAD, START, Dfa
from dendrite_jax.grammar.automata.dfa_algebra import intersection, regex_dfa
from dendrite_jax.grammar.automata.json_quoting import json_quoted
from dendrite_jax.grammar.automata.minimise import minimise
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES
from dendrite_jax.grammar.automata.regex_ast import Chars, Repeat, concat, literal
from dendrite_jax.grammar.automata.regex_parser import parse_regex
from dendrite_jax.grammar.errors import TooManyStatesError
from dendrite_jax.grammar.json_schema.nodes import Pattern, String

_CACHED = 512
_ANY_TEXT = Repeat(Chars(ANY), 0, None)


@functools.lru_cache(_CACHED)
def pattern_dfa(regex: str, whole: bool = False, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The texts in which the regex matches somewhere, or from end to end when `whole`."""
    node = parse_regex(regex)
    return regex_dfa(node if whole else concat(_ANY_TEXT, node, _ANY_TEXT), max_states)


@functools.lru_cache(_CACHED)
def string_dfa(schema: String, escapes: str, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The JSON string literals that the schema allows, quotation marks included.

    Args:
        escapes: the letters that may follow a backslash.
        max_states: the largest automaton on the way.

    Raises:
        TooManyStatesError: one needs more.
    """
    if not schema.rules:
        return _bounded_length(schema.min_length, schema.max_length, escapes, max_states)
    return json_quoted(text_dfa(schema, max_states), escapes)


@functools.lru_cache(_CACHED)
def text_dfa(schema: String, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The texts that a schema with rules allows, not quoted.

    Raises:
        TooManyStatesError: an automaton on the way needs more than `max_states`.
    """
    parts = [
        pattern_dfa(rule.regex, rule.whole, max_states)
        if isinstance(rule, Pattern)
        else regex_dfa(literal(rule.text))
        for rule in schema.rules
    ]
    if schema.min_length or schema.max_length is not None:
        length = Repeat(Chars(ANY), schema.min_length, schema.max_length)
        parts.append(regex_dfa(length, max_states))
    return functools.reduce(lambda a, b: intersection(a, b, max_states), parts)


@functools.lru_cache(8)
def any_text_dfa() -> Dfa:
    """All texts, not quoted."""
    return regex_dfa(_ANY_TEXT)


def _bounded_length(low: int, high: int | None, escapes: str, max_states: int) -> Dfa:
    """Strings of `low` to `high` characters, by copying the automaton of one character."""
    if high is not None and low > high:
        return Dfa(np.zeros((0, 1), np.int32), np.zeros(256, np.int32), np.zeros(0, bool))
    one = _one_character(escapes)
    quote = one.byte_class[ord('"')]
    begin = one.table[START, quote]
    accepting = int(np.flatnonzero(one.accept)[0])
    end = int(np.flatnonzero(one.table[:, quote] == accepting)[0])
    inner = [begin] + [s for s in range(one.states) if s not in (START, begin, end, accepting)]

    last = low if high is None else high
    if (last + 1) * len(inner) > max_states:
        raise TooManyStatesError(
            f"strings of {last} characters need more than {max_states} automaton states "
            "(max_states)"
        )
    # One block of rows per character read so far; a block's first row lies between characters.
    number = np.full(one.states + 1, DEAD, np.int64)
    number[inner] = np.arange(len(inner))
    block = number[one.table[inner]]
    ends = one.table[inner] == end
    offset = 1 + np.arange(last + 1)[:, None, None] * len(inner)
    table = np.where(block == DEAD, DEAD, block + offset)
    following = np.minimum(offset + len(inner), offset[-1])
    table = np.where(ends, following, table)
    if high is not None:
        table[-1] = DEAD
    final = 1 + table.shape[0] * len(inner)
    table[low:, 0, quote] = final
    first = np.full((1, one.table.shape[1]), DEAD)
    first[0, quote] = 1
    rows = [first, table.reshape(-1, one.table.shape[1]), np.full_like(first, DEAD)]
    accept = np.zeros(final + 1, bool)
    accept[final] = True
    dfa = Dfa(np.concatenate(rows).astype(np.int32), one.byte_class, accept)
    # The last block of a bounded string is only its first row: the others are not reachable.
    return minimise(dfa) if high is None else _without_rows(dfa, final - len(inner) + 1, final)


def _without_rows(dfa: Dfa, start: int, stop: int) -> Dfa:
    """Drops unreachable states start … stop − 1."""
    kept = np.r_[0:start, stop : dfa.states]
    number = np.full(dfa.states + 1, DEAD, np.int32)
    number[kept] = np.arange(len(kept))
    return minimise(Dfa(number[dfa.table[kept]], dfa.byte_class, dfa.accept[kept]))


@functools.lru_cache(8)
def _one_character(escapes: str) -> Dfa:
    return json_quoted(regex_dfa(Chars(ANY)), escapes)
