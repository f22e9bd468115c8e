"""Numbers, by enumeration against exact arithmetic on their decimal spellings."""

from __future__ import annotations

import itertools
import json
import operator
import random
from collections.abc import Callable, Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import jsonschema
import pytest

from dendrite_jax.grammar.automata.dfa import DEAD, START, Dfa
from dendrite_jax.grammar.compiler import byte_automaton
from dendrite_jax.grammar.grammar import Grammar

WHOLES = [str(whole) for whole in range(14)]
FRACTION_DIGITS = 3
UNIT = 10**4


def _units(text: str) -> int:
    """The value of a numeral in units that are fine enough for all bounds and multiples here."""
    units = Fraction(text) * UNIT
    assert units.denominator == 1
    return units.numerator


def _spellings() -> dict[str, int]:
    """The values of JSON's numerals without exponent, of few digits."""
    fractions = [""] + [
        "." + "".join(digits)
        for count in range(1, FRACTION_DIGITS + 1)
        for digits in itertools.product("0123456789", repeat=count)
    ]
    texts = itertools.product(("", "-"), WHOLES, fractions)
    return {text: _units(text) for text in map("".join, texts)}


SPELLINGS = _spellings()
HOLDS: dict[str, Callable[[int, int], bool]] = {
    "minimum": operator.ge,
    "maximum": operator.le,
    "exclusiveMinimum": operator.gt,
    "exclusiveMaximum": operator.lt,
    "multipleOf": lambda value, multiple: value % multiple == 0,
}


def _dfa(schema: Any) -> Dfa:
    return byte_automaton(Grammar.from_json_schema(schema))


def _accepted(dfa: Dfa) -> set[str]:
    """The accepted texts of as few digits as those of `SPELLINGS`, whatever they look like."""
    edges = [
        [(chr(byte), to) for byte, to in enumerate(row) if to != DEAD]
        for row in dfa.dense().tolist()
    ]
    found = set()
    reached = [("", START)]
    while reached:
        text, state = reached.pop()
        if dfa.accept[state] and (text not in SPELLINGS or text in found):
            assert float(text.replace("-", "")) >= len(WHOLES), text
        elif dfa.accept[state]:
            found.add(text)
        whole, point, fraction = text.lstrip("-").partition(".")
        if len(whole) <= 2 and len(fraction) < FRACTION_DIGITS and (not point or whole in WHOLES):
            reached += [(text + char, to) for char, to in edges[state]]
    return found


def _bound(rng: random.Random) -> int | float:
    digits = rng.choice([0, 0, 1, 1, 2, 3, 4])
    value = round(rng.choice([rng.uniform(-12, 12), rng.uniform(-1, 1)]), digits)
    return int(value) if digits == 0 and rng.random() < 0.5 else value


def _random_bounds(rng: random.Random) -> dict[str, Any]:
    low, high = sorted([_bound(rng), _bound(rng)])
    bounds = {}
    if rng.random() < 0.8:
        bounds[rng.choice(["minimum", "exclusiveMinimum"])] = low
    if rng.random() < 0.8 or not bounds:
        bounds[rng.choice(["maximum", "exclusiveMaximum"])] = high
    return bounds


def _limits(schema: dict[str, Any]) -> dict[str, int]:
    return {name: _units(repr(limit)) for name, limit in schema.items() if name in HOLDS}


def _valid(values: Iterable[int], schema: dict[str, Any]) -> set[int]:
    """The values that are valid, all in units."""
    kept = set(values)
    for name, limit in _limits(schema).items():
        holds = HOLDS[name]
        kept = {value for value in kept if holds(value, limit)}
    if schema["type"] == "integer":
        kept = {value for value in kept if value % UNIT == 0}
    return kept


def _is_normal(text: str, schema: dict[str, Any]) -> bool:
    """Whether the grammar writes numbers this way; see `numerals` and `multiples`."""
    bounds = [name for name in schema if name not in ("type", "multipleOf")]
    points = len(text.partition(".")[2])
    if text.startswith("-") and not SPELLINGS[text] and bounds:
        return False
    if schema["type"] == "integer":
        return points == 0
    if "multipleOf" in schema:
        multiple = repr(schema["multipleOf"]).partition(".")[2].rstrip("0")
        return points <= len(multiple)
    return True


def _has_few_values(schema: dict[str, Any]) -> bool:
    """Whether the bounds leave no value, or one, which is spelled in a way of its own."""
    bounds = _limits({name: value for name, value in schema.items() if name != "multipleOf"})
    single = len(bounds) == 2 and len(set(bounds.values())) == 1
    return single or not _valid(SPELLINGS.values(), schema)


def _check(schema: dict[str, Any]) -> None:
    valid = _valid(SPELLINGS.values(), schema)
    values = {text: value for text, value in SPELLINGS.items() if value in valid}
    expected = {text for text in values if _is_normal(text, schema)}
    assert _accepted(_dfa(schema)) == expected, schema
    # Nothing of the normal form keeps a value from its shortest spelling.
    shortest = {value: text for text, value in sorted(values.items(), key=lambda i: -len(i[0]))}
    shortest.pop(0, None)
    assert expected.issuperset(shortest.values()), schema
    assert ("0" in expected) == (0 in valid)


@pytest.mark.parametrize("kind", ["number", "integer"])
@pytest.mark.parametrize("seed", range(40))
def test_bounds_take_every_spelling_of_the_values_between(kind: str, seed: int) -> None:
    rng = random.Random(f"{kind} {seed}")
    bounds = _random_bounds(rng)
    while _has_few_values({"type": kind, **bounds}):
        bounds = _random_bounds(rng)
    _check({"type": kind, **bounds})


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("seed", range(30))
def test_multiples_have_their_shortest_spelling(bounded: bool, seed: int) -> None:
    rng = random.Random(seed)
    scale = rng.choice([0, 1, 2, 3])
    multiple = rng.randint(1, 60) / 10**scale
    schema = {
        "type": rng.choice(["number", "number", "integer"]),
        "multipleOf": int(multiple) if scale == 0 else multiple,
        **(_random_bounds(rng) if bounded else {}),
    }
    if not _has_few_values(schema):
        _check(schema)


@pytest.mark.parametrize(
    ("schema", "texts"),
    [
        ({"const": -2.0}, {"-2", "-2.0"}),
        ({"const": -12.5}, {"-12.5"}),
        ({"const": 3}, {"3"}),
        ({"const": -0.0}, {"0", "0.0", "-0.0"}),
        ({"type": "number", "minimum": -0.0, "maximum": 0}, {"0", "0.0", "-0.0"}),
        ({"type": "number", "minimum": 5, "maximum": 5}, {"5", "5.0"}),
        ({"type": "integer", "const": 5.0}, {"5"}),
        ({"enum": [1e16, 0.5]}, {"10000000000000000", "1e+16", "0.5"}),
    ],
)
def test_a_single_value_has_its_shortest_spelling_and_its_own(schema: Any, texts: set[str]) -> None:
    dfa = _dfa(schema)
    assert {text for text in texts if dfa.matches(text.encode())} == texts
    values = [schema[k] for k in ("const",) if k in schema] + schema.get("enum", [])
    assert all(schema.get("type") or dfa.matches(json.dumps(value).encode()) for value in values)
    assert sum(map(len, texts)) == sum(map(len, _texts(dfa)))


def _texts(dfa: Dfa) -> set[str]:
    """All texts of a finite language."""
    found, reached = set(), [("", START)]
    while reached:
        text, state = reached.pop()
        if dfa.accept[state]:
            found.add(text)
        reached += [
            (text + chr(byte), int(to)) for byte, to in enumerate(dfa.dense()[state]) if to != DEAD
        ]
    return found


@pytest.mark.parametrize(
    "bound",
    [
        2**63,
        2**64 - 1,
        9223372036854776000,  # 2^63 as JavaScript prints it
        -9223372036854776000,
        9223372036854775807.0,
        1e23,  # a double that is not 10^23
        10**40 + 1,
        1.7976931348623157e308,
    ],
)
@pytest.mark.parametrize("keyword", ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"])
@pytest.mark.parametrize("kind", ["integer", "number"])
def test_bounds_of_any_size_are_exact(bound: float, keyword: str, kind: str) -> None:
    schema = {"type": kind, keyword: bound}
    dfa = _dfa(schema)
    validator = jsonschema.Draft202012Validator(schema)
    centres = {int(bound), int(Fraction(repr(bound)))}
    for value in {centre + offset for centre in centres for offset in range(-3, 4)}:
        valid = validator.is_valid(value) and bool(_valid([value * UNIT], schema))
        assert dfa.matches(b"%d" % value) == valid, value
        if kind == "number":
            assert dfa.matches(b"%d.00" % value) == valid, value


@pytest.mark.parametrize("bound", [5e-324, 2.2250738585072014e-308, 1e-7])
def test_bounds_may_be_tiny(bound: float) -> None:
    numeral = format(Decimal(repr(bound)), "f")
    below = str(int(numeral[-1]) - 1)
    for keyword, at in (("minimum", True), ("exclusiveMinimum", False)):
        dfa = _dfa({"type": "number", keyword: bound})
        assert dfa.matches(numeral.encode()) == at
        assert dfa.matches(f"{numeral}00".encode()) == at
        assert dfa.matches(f"{numeral}01".encode())
        assert not dfa.matches(f"{numeral[:-1]}{below}9".encode())
        assert not dfa.matches(b"0.0")
