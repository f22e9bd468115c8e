"""Where this compiler and llguidance accept different texts, and which of them is right.

1. Names that a schema does not list: llguidance allows any `\\uXXXX` escape in them, so that
   "\\u0061" stands for a listed "a" and escapes its schema. Here such names are spelled as all
   strings are, and listed names are excluded in every spelling.
2. Patterns: where a class excludes `"` or `\\` but allows control characters, llguidance still
   allows `\\"` and `\\\\`. Here the class is kept.
3. Exclusive bounds: for an interval within one unit whose excluded lower bound is whole, llguidance
   accepts the bound. Here it is excluded.
4. `\\d` and `\\w` are ASCII in regexes too, as JSON Schema has them; llguidance's regex grammars
   read them as Unicode.
5. Integers beyond 2^53 in bounds, `const` and `enum`: llguidance rounds them to doubles. Here they
   are exact.
6. Numbers next to a bound: below a maximum of 0.95 llguidance writes 0.90 and not 0.9, and after a
   bound's last digit no zeros. Here every spelling of a value within bounds is taken.
7. Multiples: llguidance writes 5.50 as a multiple of 0.25 and not 5.5. Here both are taken.
8. Single values: llguidance writes 2 for 2.0. Here 2.0 is taken too.
9. Zero with a minus sign: llguidance takes -0 as an integer where both bounds are given. Here it is
   not taken where there is a bound.
10. Dates and times: llguidance gives every February 29 days and every minute a second 60. Here the
    calendar counts, and a leap second is taken only where it is written in UTC.
11. Strings: llguidance escapes DEL and has no `\\uXXXX` for characters beyond ASCII, and it writes
    the names of properties in one way. Here DEL stands for itself too, and these characters may be
    escaped, in names as in values.
"""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import llguidance
import pytest

from dendrite_jax.grammar.compiler import byte_automaton
from dendrite_jax.grammar.grammar import Grammar
from grammar.oracle import matcher, schema_matcher
from grammar.schema_cases import closed
from grammar.vocabularies import byte_level

LISTED = {"type": "object", "properties": {"a": {"type": "integer"}}}


def _llguidance_accepts(found: llguidance.LLMatcher, text: str) -> bool:
    tokens = [*text.encode(), byte_level().eos_ids[0]]
    return found.deep_copy().validate_tokens(tokens) == len(tokens)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        (LISTED, '{"\\u0061":"x"}'),
        ({"type": "object", "properties": {"a\n": {"type": "integer"}}}, '{"a\\u000a":"x"}'),
        ({"type": "string", "pattern": '^[^"]*$'}, '"\\""'),
        ({"type": "string", "pattern": '^[^"\n]*$'}, '"\\\\\\""'),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 0.5}, "0"),
        ({"type": "integer", "minimum": 2**53 + 1}, str(2**53)),
        ({"enum": [2**53 + 1, 5]}, str(2**53)),
    ],
)
def test_llguidance_accepts_an_invalid_text(schema: Any, text: str) -> None:
    assert _llguidance_accepts(schema_matcher(schema), text)
    assert not jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))
    assert not byte_automaton(Grammar.from_json_schema(schema), 2).matches(text.encode())


def test_other_names_are_spelled_without_needless_escapes() -> None:
    dfa = byte_automaton(Grammar.from_json_schema(LISTED), 2)
    assert _llguidance_accepts(schema_matcher(LISTED), '{"\\u0062":1}')
    assert not dfa.matches(b'{"\\u0062":1}')
    assert dfa.matches(b'{"b":1}')
    assert dfa.matches(b'{"\\u0001":1}')


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "number", "minimum": 0, "maximum": 0.95}, "0.9"),
        ({"type": "number", "minimum": 0, "maximum": 0.95}, "0.950"),
        ({"type": "number", "minimum": -9.75}, "-9.7"),
        ({"type": "number", "multipleOf": 0.25}, "5.5"),
        ({"const": -2.0}, "-2.0"),
        ({"type": "string"}, '"\x7f"'),
        ({"type": "string"}, '"\\u00e9"'),
        ({"const": "é"}, '"\\u00E9"'),
        ({"type": "string", "maxLength": 1}, '"\\ud83d\\ude00"'),
        (closed({"é": {"type": "integer"}}), '{"\\u00e9":1}'),
    ],
)
def test_llguidance_refuses_a_spelling_of_a_valid_value(schema: Any, text: str) -> None:
    assert not _llguidance_accepts(schema_matcher(schema), text)
    assert jsonschema.Draft202012Validator(schema).is_valid(json.loads(text))
    assert byte_automaton(Grammar.from_json_schema(schema), 1).matches(text.encode())


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("date", "2021-02-29"),
        ("date-time", "1900-02-29T10:20:30Z"),
        ("time", "10:20:60Z"),
        ("date-time", "2016-12-31T22:59:60Z"),
    ],
)
def test_llguidance_accepts_what_no_calendar_has(name: str, text: str) -> None:
    schema = {"type": "string", "format": name}
    assert _llguidance_accepts(schema_matcher(schema), f'"{text}"')
    assert not byte_automaton(Grammar.from_json_schema(schema)).matches(f'"{text}"'.encode())


def test_a_leap_second_is_taken_in_utc_only() -> None:
    schema = {"type": "string", "format": "time"}
    dfa = byte_automaton(Grammar.from_json_schema(schema))
    assert dfa.matches(b'"23:59:60Z"')
    # The same second, which RFC 3339 allows.
    assert _llguidance_accepts(schema_matcher(schema), '"15:59:60-08:00"')
    assert not dfa.matches(b'"15:59:60-08:00"')


def test_zero_has_no_sign_within_bounds() -> None:
    schema = {"type": "integer", "minimum": -5, "maximum": 5}
    assert _llguidance_accepts(schema_matcher(schema), "-0")
    dfa = byte_automaton(Grammar.from_json_schema(schema))
    assert dfa.matches(b"0")
    assert not dfa.matches(b"-0")


def test_integers_beyond_doubles_are_exact() -> None:
    schema = {"type": "integer", "minimum": 2**53 - 1, "maximum": 2**53 + 3, "multipleOf": 2}
    dfa = byte_automaton(Grammar.from_json_schema(schema))
    around = range(2**53 - 4, 2**53 + 8)
    assert [n for n in around if dfa.matches(b"%d" % n)] == [2**53, 2**53 + 2]
    assert byte_automaton(Grammar.from_json_schema({"const": 10**30 + 1})).matches(
        b"%d" % (10**30 + 1)
    )


@pytest.mark.parametrize(("pattern", "text"), [("\\d", "٣"), ("\\w", "é")])
def test_classes_are_ascii(pattern: str, text: str) -> None:
    assert _llguidance_accepts(matcher(f"start: /{pattern}/"), text)
    assert not byte_automaton(Grammar.from_regex(pattern)).matches(text.encode())
