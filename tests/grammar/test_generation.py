"""What a random model generates under a schema parses and is valid, and llguidance accepts it."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import jsonschema
import pytest

from dendrite_jax.grammar.compiler import GrammarCompiler
from dendrite_jax.grammar.grammar import Grammar
from grammar.excuses import excuse_for
from grammar.oracle import schema_matcher
from grammar.schema_cases import SCHEMAS
from grammar.vocabularies import byte_level
from grammar.walks import random_generations

GENERATIONS = 1000
FREE_STEPS = 25

# Unsupported keywords are ignored on request, and an overlapping oneOf is read as anyOf.
NOT_ENFORCED = {"oneOf coerced", "lenient"}


class RepeatedNameError(Exception):
    """Names that a schema does not list may be repeated; as in llguidance, nothing prevents it."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise RepeatedNameError
    return dict(pairs)


def _number_type(schema: Any) -> type[float] | type[Fraction]:
    """Exact numbers where remainders are taken; elsewhere exponents may be huge."""
    return Fraction if "multipleOf" in json.dumps(schema) else float


def _validator(schema: Any) -> Any:
    exact = json.loads(json.dumps(schema), parse_float=_number_type(schema))
    if schema.get("exclusiveMinimum") is True:
        return jsonschema.Draft4Validator(exact)
    if isinstance(schema.get("items"), list):
        return jsonschema.Draft7Validator(exact)
    return jsonschema.validators.validator_for(exact, jsonschema.Draft202012Validator)(exact)


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name not in NOT_ENFORCED])
def test_generations_are_valid(compiler: GrammarCompiler, name: str) -> None:
    schema = SCHEMAS[name]
    grammar = compiler.compile(Grammar.from_json_schema(schema))
    validator = _validator(schema)
    token_bytes = byte_level().token_bytes
    checked = 0
    for tokens in random_generations(grammar, GENERATIONS, FREE_STEPS, seed=len(name)):
        text = b"".join(token_bytes[token] or b"" for token in tokens).decode()
        try:
            value = json.loads(text, parse_float=_number_type(schema), object_pairs_hook=_unique)
        except RepeatedNameError:
            continue
        assert validator.is_valid(value), text
        checked += 1
    assert checked > GENERATIONS // 2


@pytest.mark.parametrize("name", SCHEMAS)
def test_llguidance_accepts_generations(compiler: GrammarCompiler, name: str) -> None:
    grammar = compiler.compile(Grammar.from_json_schema(SCHEMAS[name]))
    root = schema_matcher(SCHEMAS[name])
    end, token_bytes = byte_level().eos_ids[0], byte_level().token_bytes
    for tokens in random_generations(grammar, 50, FREE_STEPS, seed=7):
        taken = root.deep_copy().validate_tokens([*tokens, end])
        if taken <= len(tokens):
            text = b"".join(token_bytes[token] or b"" for token in [*tokens, end][: taken + 1])
            assert excuse_for(name)(text, True), text
