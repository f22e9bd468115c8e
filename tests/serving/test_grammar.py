"""Grammars at the border: on a prompt, on a call, side by side, and refused ones."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest

from dendrite_jax.engine import Sampling
from dendrite_jax.grammar import CompiledGrammar, Grammar, GrammarCompiler, LazyGrammar
from dendrite_jax.serving import Completion, Engine

PROMPT = "The tree"
NEW = 24
HOT = Sampling(temperature=1.5)
DATE = r"[0-9]{4}-(0[1-9]|1[0-2])"
SCHEMA = {
    "type": "object",
    "properties": {"leaf": {"type": "boolean"}, "n": {"enum": [1, 22]}},
    "required": ["leaf", "n"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
LIST = 'start: item\nitem: "a" | "[" item "]"\n'


@pytest.fixture(scope="module")
def date(shared_engine: Engine) -> CompiledGrammar:
    compiled = shared_engine.compile(Grammar.from_regex(DATE))
    assert isinstance(compiled, CompiledGrammar)
    return compiled


@pytest.fixture(scope="module")
def lists(shared_engine: Engine) -> LazyGrammar:
    return LazyGrammar(
        shared_engine.compiler, [Grammar.from_lark(LIST)], max_nodes=256, max_masks=64
    )


def complete_text(completion: Completion) -> str:
    assert completion.finish == "stop_token"
    return completion.text


def test_a_prompt_and_its_forks_are_under_its_grammar(
    engine: Engine, date: CompiledGrammar
) -> None:
    root = engine.prompt(PROMPT, grammar=date)
    children = engine.fork(root, 3)
    for completion in engine.generate(children, NEW, HOT):
        assert re.fullmatch(DATE, complete_text(completion))


@pytest.mark.slow
def test_a_call_puts_branches_under_a_grammar_anew(engine: Engine, date: CompiledGrammar) -> None:
    branch = engine.prompt(PROMPT)
    for _ in range(2):
        (completion,) = engine.generate([branch], NEW, HOT, grammar=date)
        assert re.fullmatch(DATE, complete_text(completion))
    (nothing,) = engine.generate([branch], NEW, HOT)
    assert (nothing.tokens, nothing.finish) == ([], "stop_token")


@pytest.mark.slow
def test_branches_with_other_grammars_and_without_share_a_batch(
    engine: Engine, date: CompiledGrammar
) -> None:
    schema = engine.compile(Grammar.from_json_schema(SCHEMA))
    free = engine.prompt(PROMPT, seed=1)
    (alone,) = engine.generate([free], NEW, HOT, stop_tokens=[])
    engine.free([free])
    dated = engine.prompt(PROMPT, grammar=date)
    typed = engine.prompt(PROMPT, grammar=schema)
    free = engine.prompt(PROMPT, seed=1)
    completions = engine.generate([dated, typed, free], NEW, HOT, stop_tokens=[])
    assert re.fullmatch(DATE, complete_text(completions[0]))
    assert set(json.loads(complete_text(completions[1]))) == {"leaf", "n"}
    assert completions[2].tokens == alone.tokens


@pytest.mark.slow
def test_a_stream_is_one_call_in_pieces(engine: Engine, date: CompiledGrammar) -> None:
    branch = engine.prompt(PROMPT, seed=5)
    (whole,) = engine.generate(engine.fork(branch), NEW, HOT, grammar=date)
    engine.free([branch])
    branch = engine.prompt(PROMPT, seed=5)
    rounds = list(engine.stream(engine.fork(branch), NEW, HOT, grammar=date, chunk=3))
    assert len(rounds) > 1
    assert rounds[-1][0].tokens == whole.tokens
    assert all(later[0].text.startswith(sooner[0].text) for sooner, later in pairwise(rounds))


@pytest.mark.slow
def test_fast_forward_changes_steps_only(engine: Engine) -> None:
    fixed = engine.compile(Grammar.from_regex("0123456789(a|b)9876543210"))
    found = []
    for fast_forward in (0, 8):
        branch = engine.prompt(PROMPT, seed=2)
        before = engine.stats()["steps"]
        (out,) = engine.generate([branch], NEW, HOT, grammar=fixed, fast_forward=fast_forward)
        found.append((out.tokens, out.finish, engine.stats()["steps"] - before))
        engine.free([branch])
    assert found[0][:2] == found[1][:2]
    assert found[1][2] < found[0][2] == len(found[0][0])


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [4, NEW])
def test_a_grammar_without_a_table_is_asked_when_needed(
    engine: Engine, lists: LazyGrammar, chunk: int
) -> None:
    branches = [engine.prompt(PROMPT, seed=seed, grammar=lists) for seed in range(3)]
    *_, completions = engine.stream(branches, NEW, HOT, chunk=chunk)
    for completion in completions:
        if completion.finish == "stop_token":
            assert re.fullmatch(r"\[*a\]*", completion.text)
            assert completion.text.count("[") == completion.text.count("]")
        else:
            assert (completion.finish, completion.text) == ("length", "[" * len(completion.text))
        assert len(completion.tokens) <= NEW
    assert lists.failures == 0


def test_the_path_follows_from_the_grammar(engine: Engine) -> None:
    nested = {
        "$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}},
        "$ref": "#/$defs/t",
    }
    recursive = Grammar.from_json_schema(nested)
    assert isinstance(engine.compile(recursive), LazyGrammar)
    assert isinstance(engine.compile(recursive, max_recursion_depth=1), CompiledGrammar)
    assert isinstance(engine.compile(Grammar.from_lark(LIST)), LazyGrammar)


@pytest.mark.slow
def test_grammars_that_cannot_share_a_state_are_refused(
    engine: Engine, date: CompiledGrammar, lists: LazyGrammar
) -> None:
    held = engine.prompt(PROMPT, grammar=date)
    with pytest.raises(ValueError, match=rf"cannot join those of branches \[{held}\]"):
        engine.generate([engine.prompt(PROMPT)], NEW, grammar=lists)
    engine.free([held])
    held = engine.prompt(PROMPT, grammar=lists)
    with pytest.raises(ValueError, match="cannot join"):
        engine.prompt(PROMPT, grammar=date)
    (completion,) = engine.generate([held], NEW, HOT)
    assert set(completion.text) <= set("[a]")


def test_a_state_without_constraints_takes_a_known_grammar_anew(
    engine: Engine, date: CompiledGrammar
) -> None:
    engine.free([engine.prompt(PROMPT, grammar=date)])
    engine.state = engine.state.replace(constraint=None)
    branch = engine.prompt(PROMPT, grammar=date)
    (completion,) = engine.generate([branch], NEW, HOT)
    assert re.fullmatch(DATE, complete_text(completion))


def test_a_grammar_of_another_vocabulary_changes_nothing(engine: Engine) -> None:
    other = GrammarCompiler(engine.tokenizer, use_cache=False).compile(Grammar.from_regex("a"))
    branch = engine.prompt(PROMPT)
    calls: list[Any] = [
        lambda: engine.prompt(PROMPT, grammar=other),
        lambda: engine.generate([branch], NEW, grammar=other),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="the model's vocab_size is 448"):
            call()
    assert engine.stats()["branches"] == 1
