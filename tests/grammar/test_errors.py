"""Bad grammars: one error that names the reason and the place."""

from __future__ import annotations

from typing import Any

import pytest

from dendrite_jax.grammar.compiler import GrammarCompiler, byte_automaton
from dendrite_jax.grammar.errors import GrammarError, TooManyStatesError, UnboundedRecursionError
from dendrite_jax.grammar.grammar import Grammar
from grammar.vocabularies import FakeTokenizer


@pytest.mark.parametrize(
    ("pattern", "place", "reason"),
    [
        ("a(b", "offset 1", "missing '\\)'"),
        ("ab)", "offset 2", "unmatched '\\)'"),
        ("*a", "offset 0", "nothing to repeat"),
        ("a{b", "offset 1", "written {n}"),
        ("a{3,2}", "offset 1", "no count"),
        ("a{200000}", "offset 1", "limit of 100000"),
        (f"a{{{'9' * 5000}}}", "offset 1", "limit of 100000"),
        ("ba*+", "offset 1", "possessive"),
        ("[a", "offset 0", "no '\\]'"),
        ("[b-a]", "offset 2", "backwards"),
        ("[\\d-z]", "offset 3", "single characters"),
        ("[a&&b]", "offset 2", "set operator '&&'"),
        ("[[:alpha:]]", "offset 1", "class in a class"),
        ("[^\\s\\S]", "offset 0", "empty"),
        ("x(?=a)", "offset 1", "lookahead"),
        ("(?<!a)b", "offset 0", "lookbehind"),
        ("(a)\\1", "offset 3", "backreferences"),
        ("a\\b", "offset 1", "word boundaries"),
        ("\\p{L}", "offset 0", "Unicode property"),
        ("\\q", "offset 0", "unknown escape"),
        ("\\xg0", "offset 0", "hexadecimal"),
        ("\\ud800", "offset 0", "surrogate U\\+D800"),
        ("(?i)a", "offset 0", "inline flag 'i'"),
        ("(?P<1>a)", "offset 0", "group name"),
        ("^*", "offset 0", "repeated anchor"),
        ("a\\", "offset", "unfinished"),
    ],
)
def test_a_bad_regex_is_refused(pattern: str, place: str, reason: str) -> None:
    with pytest.raises(GrammarError, match=reason) as caught:
        byte_automaton(Grammar.from_regex(pattern))
    assert caught.value.place.startswith(place)


@pytest.mark.parametrize(
    ("schema", "place", "reason"),
    [
        ({"not": {"type": "null"}}, "#", "keyword 'not'"),
        ({"if": {"type": "null"}, "then": False}, "#", "keyword 'if'"),
        ({"uniqueItems": 0}, "#", "keyword 'uniqueItems'"),
        ({"dependencies": {"a": ["b"]}}, "#", "keyword 'dependencies'"),
        ({"properties": {"a": {"uniqueItems": True}}}, "#/properties/a", "'uniqueItems'"),
        ({"type": "text"}, "#", "type 'text'"),
        ({"type": 3}, "#", "type must be"),
        ({"type": "integer", "minimum": "3"}, "#", "minimum must be a number"),
        ({"type": "number", "multipleOf": 0}, "#", "multipleOf is 0"),
        ({"type": "number", "maximum": 10**309 + 1}, "#", "magnitude must be at most 10\\^309"),
        ({"type": "integer", "minimum": 10**400}, "#", "magnitude"),
        ({"type": "integer", "minimum": None}, "#", "minimum must be a number"),
        ({"type": "string", "maxLength": None}, "#", "maxLength must be an integer"),
        ({"type": "string", "pattern": None}, "#", "pattern must be a string"),
        ({"type": "string", "format": None}, "#", "format must be a string"),
        ({"type": "array", "items": None}, "#/items", "a schema is an object or a boolean"),
        (
            {"type": "object", "additionalProperties": None},
            "#/additionalProperties",
            "a schema is an object or a boolean",
        ),
        ({"type": "string", "minLength": -1}, "#", "minLength must be an integer"),
        ({"type": "string", "format": "color"}, "#", "format 'color'"),
        ({"type": "string", "pattern": "("}, "#", "missing '\\)'.*regex"),
        ({"type": "array", "items": 3}, "#/items", "a schema is an object or a boolean"),
        ({"type": "array", "prefixItems": {}}, "#", "prefixItems must be an array"),
        ({"type": "object", "required": "a"}, "#", "required must be an array"),
        ({"type": "object", "properties": []}, "#", "properties must be an object"),
        ({"anyOf": {}}, "#", "anyOf must be an array"),
        ({"$ref": "#/$defs/x", "$defs": {"y": {}}}, "#", "there is no 'x'"),
        ({"$ref": "#/anyOf/²", "anyOf": [{}]}, "#", "there is no '²'"),
        ({"$ref": "http://example.com/x"}, "#", "outside the document.*'http://example.com/x'"),
        ({"$id": "http://a/b", "$ref": "http://[x#y"}, "#", "'http://\\[x' is not a URI"),
        ({"$id": "http://a/b", "items": {"$id": "http://[x"}}, "", "'http://\\[x' is not a URI"),
        ({"$ref": "#x", "$defs": {"a": {"$anchor": "y"}}}, "#", "there is no anchor 'x'"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "#/oneOf", "exclude each other"),
        (
            {"type": "object", "patternProperties": {"^a": {}, "b$": {}}},
            "#",
            "match a common name",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "null"}, "b": {"type": "null"}},
                "additionalProperties": False,
                "minProperties": 2,
            },
            "",
            "minProperties and maxProperties",
        ),
        (
            {
                "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/b"}],
                "$defs": {
                    name: {
                        "type": "object",
                        "properties": {"child": {"$ref": f"#/$defs/{name}"}},
                    }
                    for name in "ab"
                },
            },
            "#",
            "deeper than",
        ),
        ({"x-guidance": {"speed": 1}}, "#/x-guidance", "option 'speed'"),
        ({"x-guidance": {"lenient": "yes"}}, "#/x-guidance", "lenient must be of type bool"),
        ({"x-guidance": {"json_allowed_escapes": "nx"}}, "#/x-guidance", "unknown letters"),
    ],
)
def test_a_bad_schema_is_refused(schema: Any, place: str, reason: str) -> None:
    with pytest.raises(GrammarError, match=reason) as caught:
        byte_automaton(Grammar.from_json_schema(schema))
    assert caught.value.place == place


@pytest.mark.parametrize(
    "schema",
    [
        False,
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4},
        {"type": "integer", "multipleOf": 10, "minimum": 11, "maximum": 19},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "string", "pattern": "^a$", "minLength": 2},
        {"const": "a", "maxLength": 0},
        {"type": "array", "items": False, "minItems": 1},
        {"type": "array", "minItems": 3, "maxItems": 2, "items": {"type": "null"}},
        {"type": "object", "properties": {"a": False}, "required": ["a"]},
        {"type": "object", "required": ["a", "b"], "maxProperties": 1},
        {"allOf": [{"type": "string"}, {"type": "null"}]},
        {"anyOf": []},
        {"enum": [3, 5], "type": "string"},
        {"not": {}},
        {"type": "integer", "not": True},
    ],
)
def test_a_schema_without_values_is_refused(schema: Any) -> None:
    with pytest.raises(GrammarError, match="allows no value"):
        byte_automaton(Grammar.from_json_schema(schema))


def test_choices_must_be_there_and_be_strings() -> None:
    with pytest.raises(GrammarError, match="choices is empty"):
        Grammar.from_choice([])
    with pytest.raises(GrammarError, match="sequence of strings"):
        Grammar.from_choice("yes")
    with pytest.raises(GrammarError, match="sequence of strings"):
        Grammar.from_choice(["a", 3])  # type: ignore[list-item]
    with pytest.raises(GrammarError, match="sequence of strings"):
        Grammar.from_choice(None)  # type: ignore[arg-type]
    assert Grammar.from_choice(iter("ab")) == Grammar.from_choice(["a", "b"])


def test_a_schema_must_be_json() -> None:
    for schema in ("{", '{"const": NaN}', {"const": float("inf")}):
        with pytest.raises(GrammarError, match="not JSON"):
            Grammar.from_json_schema(schema)


def test_sources_are_text() -> None:
    with pytest.raises(GrammarError, match="regex must be a string"):
        Grammar.from_regex(3)  # type: ignore[arg-type]
    with pytest.raises(GrammarError, match="offset 1: a surrogate"):
        Grammar.from_regex("a\ud800")
    with pytest.raises(GrammarError, match="surrogate"):
        Grammar.from_json_schema('{"const": "\\ud800"}')


def test_endless_nesting_is_refused() -> None:
    with pytest.raises(GrammarError, match="nested too deeply"):
        byte_automaton(Grammar.from_regex("(" * 5000 + ")" * 5000))
    schema: Any = {"type": "null"}
    for _ in range(400):
        schema = {"type": "array", "items": schema}
    with pytest.raises(GrammarError, match="nested too deeply"):
        byte_automaton(Grammar.from_json_schema(schema))
    for _ in range(100_000):
        schema = [schema]
    with pytest.raises(GrammarError, match=r"not JSON.*recursion"):
        Grammar.from_json_schema(schema)


@pytest.mark.slow
def test_budgets_are_named(compiler: GrammarCompiler) -> None:
    with pytest.raises(TooManyStatesError, match="max_states"):
        compiler.compile(Grammar.from_regex("(a|b)*a(a|b){12}"), max_states=1000)
    with pytest.raises(TooManyStatesError, match=r"overlap too much for 1000.*max_states"):
        compiler.compile(Grammar.from_regex("(a?){500}"), max_states=1000)
    with pytest.raises(TooManyStatesError, match="max_bytes"):
        compiler.compile(Grammar.from_regex("[a-z]{40}x"), max_bytes=100)
    with pytest.raises(TooManyStatesError, match="token masks are over 1100 bytes"):
        compiler.compile(Grammar.from_regex("a1b2c3d4e5f6g7h8i9j0"), max_bytes=1100)
    long = Grammar.from_json_schema({"type": "string", "maxLength": 6000})
    with pytest.raises(TooManyStatesError, match=r"50000 automaton states \(max_states\)"):
        byte_automaton(long)
    assert byte_automaton(long, max_states=150_000).matches(b'"%s"' % (b"a" * 6000))
    with pytest.raises(GrammarError, match="max_recursion_depth is -1"):
        compiler.compile(Grammar.from_json_schema(True), max_recursion_depth=-1)


def test_lark_has_no_table(compiler: GrammarCompiler) -> None:
    with pytest.raises(UnboundedRecursionError, match="LazyGrammar"):
        compiler.compile(Grammar.from_lark('start: "a"'))


def test_a_language_that_tokens_do_not_spell_is_refused() -> None:
    compiler = GrammarCompiler(FakeTokenizer([b"a", b"bc", None], (2,)), use_cache=False)
    assert compiler.compile(Grammar.from_regex("(a|bc)*")).vocab_size == 3
    with pytest.raises(GrammarError, match="no sequence of this vocabulary's tokens"):
        compiler.compile(Grammar.from_regex("ab"))
    # The token that ends a text does not spell its bytes.
    compiler = GrammarCompiler(FakeTokenizer([b"a", b"b"], (1,)), use_cache=False)
    with pytest.raises(GrammarError, match="no sequence of this vocabulary's tokens"):
        compiler.compile(Grammar.from_regex("ab"))


def test_the_vocabulary_must_have_an_end() -> None:
    with pytest.raises(ValueError, match="eos_ids is empty"):
        GrammarCompiler(FakeTokenizer([b"a"], ()), use_cache=False)
    with pytest.raises(ValueError, match=r"eos_ids \[7\] are outside the vocabulary \[0, 1\)"):
        GrammarCompiler(FakeTokenizer([b"a"], (7,)), use_cache=False)
    with pytest.raises(ValueError, match="vocab_size is 1; the tokenizer has 2"):
        GrammarCompiler(FakeTokenizer([b"a", None], (1,)), vocab_size=1, use_cache=False)
