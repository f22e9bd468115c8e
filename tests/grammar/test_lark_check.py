"""Rules that can never end."""

from __future__ import annotations

import pytest

from dendrite_jax.grammar.errors import GrammarError
from dendrite_jax.grammar.lazy.lark_check import check_rules_can_end
from grammar.oracle import matcher
from grammar.test_lazy import ARITHMETIC


@pytest.mark.parametrize(
    ("grammar", "rule"),
    [
        ('start: "a" start', "start"),
        ('start: "a" start | start "b"', "start"),
        ('start: "x" | list\nlist: "(" list ")"', "list"),
        ("start: a\na: b+\nb: (a | b) /x/", "start"),
        ('start: "a" (start | "b" start)', "start"),
        ('start: item{2,3}\nitem: "i" item', "start"),
        ("start: item // ends?\nitem: start", "start"),
    ],
)
def test_a_rule_without_end_is_named(grammar: str, rule: str) -> None:
    matcher(grammar)  # llguidance has no objection
    with pytest.raises(GrammarError, match="requires itself without end") as caught:
        check_rules_can_end(grammar)
    assert caught.value.place == f"rule {rule!r}"


@pytest.mark.parametrize(
    "grammar",
    [
        ARITHMETIC,
        'start: "a" start?',
        'start: "a" [start]',
        'start: "a" start* "b"',
        'start: "a" start{0,2}',
        'start: "a" start | "b"',
        'start: "a" start |',
        'start: /a:b|c/ "start: x"',
        'start: "a" rest\nrest: start | "!"\nunused: unused "x"',
        'start: %json {"type": "object", "properties": {"a": {"$ref": "#"}}}',
        'start: NUM | start "," NUM\nNUM: /[0-9]/\n%ignore /[ ]+/',
        'start: "a"\n     | "b" start\n     | "c"',
    ],
)
def test_rules_that_end_pass(grammar: str) -> None:
    matcher(grammar)
    check_rules_can_end(grammar)
