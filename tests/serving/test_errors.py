"""Bad input and full caches: one clear error, and an engine that goes on as if unasked."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dendrite_jax.cache import BranchError, CapacityError
from dendrite_jax.engine import GREEDY, PLAIN
from dendrite_jax.grammar import Grammar
from dendrite_jax.models import Decoder
from dendrite_jax.serving import Engine
from dendrite_jax.serving.validation import PromptError, check_stop_strings
from serving.conftest import MAX_CONTEXT, NUM_BLOCKS, NUM_SLOTS

PROMPT = list(range(10))
NEW = 12

# What is asked of an engine and its only branch, the type of the error, and what it must name.
REFUSALS: dict[str, tuple[Callable[[Any, Any], object], type[Exception], str]] = {
    "empty prompt": (lambda e, b: e.prompt(""), PromptError, "prompt is empty.* at least one"),
    "no tokens": (lambda e, b: e.prompt([]), PromptError, "prompt is empty.* at least one"),
    "long prompt": (lambda e, b: e.prompt([1] * 65), PromptError, "65 tokens; max_context is 64"),
    "large id": (lambda e, b: e.prompt([1, 448]), PromptError, r"448 at place 1 .*\[0, 448\)"),
    "negative id": (lambda e, b: e.prompt([-1]), PromptError, r"-1 at place 0 .*\[0, 448\)"),
    "no Unicode": (lambda e, b: e.prompt("a\udcff"), PromptError, r"'\\udcff' at place 1"),
    "large seed": (lambda e, b: e.prompt("a", seed=2**32), ValueError, "seed is 4294967296;.*95$"),
    "negative seed": (lambda e, b: e.prompt("a", seed=-1), ValueError, "seed is -1; .*from 0"),
    "no children": (lambda e, b: e.fork(b, 0), ValueError, "n is 0; it must be at least 1"),
    "many children": (
        lambda e, b: e.fork(b, 6),
        CapacityError,
        "6 children: num_slots is 6, 1 are held",
    ),
    "unknown parent": (lambda e, b: e.fork(b + 1), BranchError, "branch 1 is not held"),
    "negative parent": (lambda e, b: e.fork(-1), BranchError, "branch -1 is not held"),
    "unknown branch": (lambda e, b: e.generate([b, 99], 1), BranchError, "branch 99 is not held"),
    "repeated branch": (lambda e, b: e.generate([b, b], 1), BranchError, "one branch twice"),
    "freeing twice": (lambda e, b: e.free([b, b]), BranchError, "one branch twice"),
    "freeing unknown": (lambda e, b: e.free([b, b + 1]), BranchError, "branch 1 is not held"),
    "no new tokens": (lambda e, b: e.generate([b], 0), ValueError, "max_new_tokens is 0; .*least"),
    "no chunk": (lambda e, b: e.stream([b], 1, chunk=0), ValueError, "chunk is 0; .*least 1"),
    "stop token": (
        lambda e, b: e.generate([b], 1, stop_tokens=[448]),
        ValueError,
        r"stop token 448 .*\[0, 448\)",
    ),
    "one branch": (
        lambda e, b: e.generate(b, 4),
        ValueError,
        r"branches is 0; it takes a list of branch ids, such as \[0\]",
    ),
    "freeing one": (lambda e, b: e.free(b), ValueError, "branches is 0; it takes a list of"),
    "a branch's text": (lambda e, b: e.generate("0", 4), ValueError, "branches is '0'; it takes"),
    "forking several": (lambda e, b: e.fork([b]), ValueError, r"branch is \[0\]; it takes one"),
    "half a child": (lambda e, b: e.fork(b, 1.5), ValueError, "n is 1.5; it takes a whole number"),
    "several prompts": (
        lambda e, b: e.prompt(["a", "b"]),
        PromptError,
        r"prompt is \['a', 'b'\]; it takes one text, or the token ids of one",
    ),
    "no prompt": (lambda e, b: e.prompt(None), PromptError, "prompt is None; it takes one text"),
    "no seed": (lambda e, b: e.prompt("a", None), ValueError, "seed is None; it takes a whole"),
    "half a token": (lambda e, b: e.generate([b], 2.5), ValueError, "max_new_tokens is 2.5; it"),
    "one stop token": (
        lambda e, b: e.generate([b], 1, stop_tokens=3),
        ValueError,
        "stop_tokens is 3; it takes a list of token ids",
    ),
    "no stop strings": (
        lambda e, b: e.generate([b], 1, stop_strings=[3]),
        ValueError,
        r"stop_strings is \[3\]; it takes a text or a list of texts",
    ),
    "a grammar that is not compiled": (
        lambda e, b: e.generate([b], 1, grammar=Grammar.from_regex("a+")),
        ValueError,
        "grammar is Grammar.*; it takes what `Engine.compile` gives",
    ),
    "a text for a length": (
        lambda e, b: e.generate([b], 1, fast_forward="a"),
        ValueError,
        "fast_forward is 'a'; it takes a whole number",
    ),
    "a text for a number": (
        lambda e, b: e.generate([b], 1, PLAIN.replace(top_k="a")),
        ValueError,
        "sampling.top_k is 'a'; it takes a number",
    ),
    "a temperature": (
        lambda e, b: e.generate([b], 1, 0.7),
        ValueError,
        r"sampling is 0.7; it takes a Sampling, such as Sampling\(temperature=0\)",
    ),
    "sampling of others": (
        lambda e, b: e.generate([b], 1, PLAIN.replace(temperature=[1.0, 2.0])),
        ValueError,
        "sampling.temperature has 2 values; .* one for each of 1 branches",
    ),
    "empty stop string": (
        lambda e, b: e.generate([b], 1, stop_strings=["x", ""]),
        ValueError,
        r"stop strings are \['x', ''\]",
    ),
}
BAD_SAMPLING = {
    "temperature": (-0.5, float("nan"), float("inf")),
    "top_k": (0, -1),
    "top_p": (0.0, 1.5, float("nan")),
    "min_p": (-0.1, 1.1),
    "repetition_penalty": (0.0, -2.0, float("inf")),
}


def continuation(engine: Engine, branch: int) -> list[int]:
    """Sampled, by the branch itself and by a child: both depend on its random key."""
    (child,) = engine.fork(branch)
    completions = engine.generate([branch, child], NEW, stop_tokens=[])
    return [token for completion in completions for token in completion.tokens]


@pytest.fixture(scope="module")
def undisturbed(shared_engine: Engine) -> list[int]:
    """What a branch of PROMPT gives when nothing goes wrong before."""
    branch = shared_engine.prompt(PROMPT, seed=5)
    tokens = continuation(shared_engine, branch)
    shared_engine.free(np.flatnonzero(np.asarray(shared_engine.state.cache.alive)).tolist())
    return tokens


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_names_what_is_wrong_and_changes_nothing(
    engine: Engine, undisturbed: list[int], name: str
) -> None:
    ask, kind, message = REFUSALS[name]
    branch = engine.prompt(PROMPT, seed=5)
    before = engine.stats()
    with pytest.raises(kind, match=message) as caught:
        ask(engine, branch)
    assert "\n" not in str(caught.value)
    assert engine.stats() == before
    assert continuation(engine, branch) == undisturbed


@pytest.mark.parametrize(
    ("field", "value"), [(field, value) for field in BAD_SAMPLING for value in BAD_SAMPLING[field]]
)
def test_sampling_outside_its_limits_is_refused(engine: Engine, field: str, value: float) -> None:
    branch = engine.prompt(PROMPT)
    before = engine.stats()
    for asked in (value, np.array([value], np.float32)):
        shown = re.escape(str(np.asarray(asked).tolist()))
        with pytest.raises(ValueError, match=rf"sampling\.{field} is {shown}; it must be"):
            engine.stream([branch], NEW, PLAIN.replace(**{field: asked}))
    assert engine.stats() == before


def test_a_freed_branch_is_unknown(engine: Engine) -> None:
    branch = engine.prompt(PROMPT)
    engine.free([branch])
    with pytest.raises(BranchError, match=f"branch {branch} is not held"):
        engine.free([branch])
    with pytest.raises(BranchError, match=f"branch {branch} is not held"):
        engine.generate([branch], NEW)


def test_no_slot_for_a_prompt(engine: Engine, undisturbed: list[int]) -> None:
    root = engine.prompt(PROMPT, seed=5)
    others = [engine.prompt(PROMPT) for _ in range(NUM_SLOTS - 1)]
    with pytest.raises(CapacityError, match=f"num_slots is {NUM_SLOTS}, {NUM_SLOTS} are held"):
        engine.prompt(PROMPT)
    assert engine.stats()["branches"] == NUM_SLOTS
    engine.free(others)
    assert continuation(engine, root) == undisturbed


@pytest.mark.slow
def test_no_blocks_for_a_prompt(engine: Engine, undisturbed: list[int]) -> None:
    root = engine.prompt(PROMPT, seed=5)  # 1 block
    long = engine.prompt([7] * MAX_CONTEXT)  # 4 blocks; 3 are left
    with pytest.raises(CapacityError, match=rf"num_blocks is {NUM_BLOCKS} and at least 9 are"):
        engine.prompt([7] * MAX_CONTEXT)
    assert engine.stats()["branches"] == 2
    assert engine.stats()["blocks_used"] == 5
    # A shortage is reported as large as it is, not as the largest so far.
    third = engine.prompt([7] * 48)
    with pytest.raises(CapacityError, match=rf"num_blocks is {NUM_BLOCKS} and at least 9 are"):
        engine.prompt([7])
    engine.free([long, third])
    assert continuation(engine, root) == undisturbed


@pytest.mark.slow
def test_a_branch_without_blocks_stops_alone_and_goes_on_later(engine: Engine) -> None:
    alone = engine.prompt(PROMPT, seed=1)
    expected = [
        token
        for _ in range(2)
        for token in engine.generate([alone], NEW, GREEDY, stop_tokens=[])[0].tokens
    ]
    engine.free([alone])

    filler = engine.prompt([7] * (MAX_CONTEXT - 16))  # 3 blocks
    second = engine.prompt([7] * (MAX_CONTEXT - 32))  # 2 more
    branches = [engine.prompt(PROMPT), engine.prompt(PROMPT)]  # 2 more, of 16 tokens; 1 is left
    with pytest.raises(CapacityError, match=rf"\[{branches[1]}\] .*num_blocks is 8 .*least 9"):
        engine.generate(branches, NEW, GREEDY, stop_tokens=[])
    assert np.asarray(engine.state.cache.length)[branches].tolist() == [10 + NEW, 16]
    # The other branch is not met by the error, and nothing of it is left.
    (more,) = engine.generate([branches[0]], 1, GREEDY, stop_tokens=[])
    assert more.tokens == expected[NEW : NEW + 1]
    with pytest.raises(CapacityError, match=f"num_slots is {NUM_SLOTS}, 4 are held"):
        engine.fork(filler, 3)
    # With room again, the stopped one goes on from what it holds.
    engine.free([filler, second])
    (rest,) = engine.generate([branches[1]], NEW, GREEDY, stop_tokens=[])
    assert rest.tokens == expected[6 : 6 + NEW]
    assert rest.finish == "length"


def test_a_full_context_names_max_context_every_time(engine: Engine) -> None:
    full, other = engine.prompt([7] * MAX_CONTEXT), engine.prompt(PROMPT)
    for _ in range(2):
        with pytest.raises(CapacityError, match=rf"\[{full}\] .*\[64\] tokens: max_context is 64"):
            engine.generate([full], 1, stop_tokens=[])
    assert len(engine.generate([other], NEW, stop_tokens=[])[0].tokens) == NEW


@pytest.mark.slow
def test_a_context_that_is_no_whole_number_of_blocks_is_the_users(shared_engine: Engine) -> None:
    engine = Engine(shared_engine.model, shared_engine.tokenizer, max_context=20, num_slots=2)
    with pytest.raises(PromptError, match="21 tokens; max_context is 20"):
        engine.prompt([7] * 21)
    branch = engine.prompt([7] * 18)
    assert len(engine.generate([branch], 2, stop_tokens=[])[0].tokens) == 2
    with pytest.raises(CapacityError, match=r"\[20\] tokens: max_context is 20"):
        engine.generate([branch], 1, stop_tokens=[])


def test_a_branch_without_a_distribution_ends_alone_and_is_named_when_it_goes_on(
    engine: Engine, undisturbed: list[int]
) -> None:
    spoilt, sound = engine.prompt(PROMPT), engine.prompt(PROMPT, seed=5)
    hidden = engine.state.hidden.at[spoilt, 3].set(np.nan)
    engine.state = engine.state.replace(hidden=hidden)
    (nothing, whole) = engine.generate([spoilt, sound], NEW, stop_tokens=[])
    assert (nothing.tokens, nothing.text, nothing.finish) == ([], "", "bad_logits")
    assert whole.tokens == undisturbed[:NEW]
    with pytest.raises(BranchError, match=rf"branches \[{spoilt}\] stopped: .* NaN or infinite"):
        engine.generate([spoilt, sound], 1, stop_tokens=[])


def test_a_branch_freed_during_its_stream_is_an_error(
    engine: Engine, undisturbed: list[int]
) -> None:
    branch = engine.prompt(PROMPT)
    rounds = engine.stream([branch], NEW, stop_tokens=[], chunk=5)
    next(rounds)
    engine.free([branch])
    with pytest.raises(BranchError, match="not held"):
        next(rounds)
    assert continuation(engine, engine.prompt(PROMPT, seed=5)) == undisturbed


@pytest.mark.parametrize("field", ["num_slots", "max_context", "block_size", "num_blocks"])
def test_capacities_below_one_are_named(shared_engine: Engine, field: str) -> None:
    model, tokenizer = shared_engine.model, shared_engine.tokenizer
    assert isinstance(model, Decoder)
    capacities: dict[str, Any] = {field: 0}
    with pytest.raises(ValueError, match=rf"\.{field} is 0; it must be at least 1"):
        Engine(model, tokenizer, **capacities)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_a_memory_fraction_outside_its_limits_is_named(
    shared_engine: Engine, fraction: float
) -> None:
    with pytest.raises(ValueError, match=rf"memory_fraction is {fraction}; .*\(0, 1\]"):
        Engine(shared_engine.model, shared_engine.tokenizer, memory_fraction=fraction)


def test_a_stop_string_that_no_tokens_spell_is_refused() -> None:
    token_bytes = [b"ab", b"c", None]
    check_stop_strings(["bc", "a", "cab"], token_bytes)
    with pytest.raises(ValueError, match=r"stop_strings has 'ac'; no run of .* 3 tokens contains"):
        check_stop_strings(["bc", "ac"], token_bytes)
