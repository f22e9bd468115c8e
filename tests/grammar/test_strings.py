"""Spellings of strings, against Python's json."""

from __future__ import annotations

import itertools
import json
import random
import re
from typing import Any

import pytest

from dendrite_jax.grammar.automata.dfa import DEAD, START, Dfa
from dendrite_jax.grammar.automata.dfa_algebra import texts_dfa
from dendrite_jax.grammar.automata.json_quoting import json_quoted
from dendrite_jax.grammar.compiler import byte_automaton
from dendrite_jax.grammar.grammar import Grammar

ONE_CHARACTER = {"type": "string", "minLength": 1, "maxLength": 1}
# Around the changes of the length in UTF-8, and some of everything else.
CODE_POINTS = sorted(
    {*range(0x900), *range(0xD700, 0xE100), *range(0xFF00, 0x10100)}
    | {*range(0x900, 0x110000, 331), *range(0x10FF00, 0x110000)}
)


def _dfa(schema: Any) -> Dfa:
    return byte_automaton(Grammar.from_json_schema(schema), 1)


def _is_escaped(code: int) -> bool:
    """Whether a character may be written as \\uXXXX here."""
    return code < 0x20 or code >= 0x7F


def _escape(code: int) -> str:
    units = chr(code).encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def test_every_character_may_be_escaped_or_stand_for_itself() -> None:
    dfa = _dfa(ONE_CHARACTER)
    for code in CODE_POINTS:
        is_character = not 0xD800 <= code < 0xE000
        raw = chr(code).encode(errors="surrogatepass")
        plain = is_character and code >= 0x20 and chr(code) not in '"\\'
        assert dfa.matches(b'"%s"' % raw) == plain, hex(code)
        escaped = is_character and _is_escaped(code)
        digits = _escape(code)
        for spelling in (digits, digits.upper().replace("U", "u")):
            assert dfa.matches(f'"{spelling}"'.encode()) == escaped, spelling
        if is_character:
            for ascii_only in (True, False):
                text = json.dumps(chr(code), ensure_ascii=ascii_only)
                assert dfa.matches(text.encode()), text


def test_surrogates_come_in_pairs() -> None:
    dfa = _dfa(ONE_CHARACTER)
    units = [0xD800, 0xD83D, 0xDBFF, 0xDC00, 0xDE00, 0xDFFF, 0xE000, 0x41, 0xE9, 0x0A]
    for first, second in itertools.product(units, repeat=2):
        text = f'"\\u{first:04x}\\u{second:04x}"'
        assert dfa.matches(text.encode()) == (len(json.loads(text)) == 1), text


@pytest.mark.parametrize(
    "characters",
    [
        "[à-ü]",
        "[a-zé]",
        "日",
        "[😀-😏]",
        "[^\\x00-\\u07ff]",
        "[\\x00-\\x7f]",
        "[߿-ࠀ￿-𐀀]",
        "[\x7f-\x80]",
    ],
)
def test_escapes_spell_the_characters_of_a_pattern_and_no_others(characters: str) -> None:
    dfa = _dfa({"type": "string", "pattern": f"^{characters}$"})
    allowed = re.compile(characters)
    for code in CODE_POINTS:
        if not 0xD800 <= code < 0xE000:
            text = f'"{_escape(code)}"'
            expected = bool(allowed.fullmatch(chr(code))) and _is_escaped(code)
            assert dfa.matches(text.encode()) == expected, text


TEXTS = [
    "é",
    "naïve\n",
    "日本",
    "x😀",
    "\x7f",
    "a\u2028",
    "plain",
    '"\\',
    "\U0010ffff\u0080\u07ff\u0800\uffff",
]


@pytest.mark.parametrize("text", TEXTS)
def test_names_and_constants_have_every_spelling(text: str) -> None:
    constant = _dfa({"const": text})
    listed = _dfa(
        {"type": "object", "properties": {text: {"const": 1}}, "additionalProperties": {"const": 2}}
    )
    rng = random.Random(text)
    for _ in range(20):
        spelled = "".join(
            _escape(ord(char)) if _is_escaped(ord(char)) and rng.random() < 0.5
            else json.dumps(char, ensure_ascii=rng.random() < 0.5)[1:-1]
            for char in text
        )  # fmt: skip
        assert json.loads(f'"{spelled}"') == text
        assert constant.matches(f'"{spelled}"'.encode()), spelled
        assert listed.matches(f'{{"{spelled}":1}}'.encode()), spelled
        assert not listed.matches(f'{{"{spelled}":2}}'.encode()), spelled
        assert listed.matches(f'{{"{spelled}é":2}}'.encode()), spelled


def test_a_literal_has_no_spelling_of_another_text() -> None:
    """Every text of the automaton of "é€😀" reads as that."""
    dfa = json_quoted(texts_dfa(["é€😀\n".encode()]))
    dense, count = dfa.dense(), 0
    reached = [(b"", START)]
    while reached:
        text, state = reached.pop()
        if dfa.accept[state]:
            assert json.loads(text) == "é€😀\n"
            count += 1
        reached += [
            (text + bytes([byte]), int(to)) for byte, to in enumerate(dense[state]) if to != DEAD
        ]
    # Hexadecimal letters come in either case: e9, 20ac, d83d de00, 0a.
    assert count == (1 + 2) * (1 + 4) * (1 + 2 * 2 * 4) * (1 + 2)


def test_without_u_nothing_is_escaped_by_its_number() -> None:
    dfa = _dfa({**ONE_CHARACTER, "x-guidance": {"json_allowed_escapes": 'n"\\'}})
    assert dfa.matches('"é"'.encode())
    assert dfa.matches(b'"\\n"')
    assert not dfa.matches(b'"\\u00e9"')
    name = _dfa(
        {"type": "object", "properties": {"é\n": True}, "x-guidance": {"json_allowed_escapes": ""}}
    )
    assert name.matches('{"é\\n":1}'.encode())
