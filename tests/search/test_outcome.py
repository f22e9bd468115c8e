"""What became of a thought, and the sentence that says why a search has no answer."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine, search
from dendrite_jax.cache import NO_BRANCH
from dendrite_jax.cache.state import CONTEXT_FULL
from dendrite_jax.engine import NO_TOKEN, Model, State, StopRules
from dendrite_jax.engine.stopping import BAD_LOGITS, LENGTH, RUNNING
from dendrite_jax.search import (
    NO_NODE,
    OUTCOME_NAMES,
    ROOT,
    SampleConfig,
    SampleThoughts,
    Scored,
    SearchResult,
    Thoughts,
    explain,
    path_key,
)
from dendrite_jax.search.outcome import outcome_of
from engine.programs import LANES, bigram, start
from search.export.made import Node, make_result
from search.programs import CACHE


def names(codes: jax.Array) -> list[str]:
    return [OUTCOME_NAMES[code] for code in np.asarray(codes).tolist()]


def test_every_thought_is_told_by_what_became_of_it() -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("complete", {}),
        ("unused", {"branch": -1}),
        ("no_room", {"failed": True, "complete": False, "length": 1}),
        ("no_stop", {"complete": False}),
        ("off_grammar", {"complete": False, "length": 1}),
        ("no_stop", {"complete": False, "length": 1, "finish": LENGTH}),
        ("bad_logits", {"complete": False, "finish": BAD_LOGITS}),
        ("rejected", {"value": -np.inf}),
        ("not_a_number", {"value": np.nan}),
        ("not_a_number", {"value": np.inf}),
        ("unscored", {"value": -np.inf, "short": True}),
    ]
    usual = {
        "finish": RUNNING,
        "branch": 3,
        "failed": False,
        "complete": True,
        "length": 2,
        "value": 0.5,
    }
    rows = [{**usual, "short": False, **changed} for _, changed in cases]

    def field(name: str) -> jax.Array:
        return jnp.array([row[name] for row in rows])

    zero = jnp.zeros(len(rows))
    thoughts = Thoughts(
        branch=field("branch"),
        tokens=jnp.zeros((len(rows), 2), jnp.int32),
        length=field("length"),
        complete=field("complete"),
        failed=field("failed"),
        raw_logprob=zero,
        logprob=zero,
        parent=jnp.zeros(len(rows), jnp.int32),
        finish=field("finish"),
    )
    scored = Scored(field("value"), zero.astype(int), zero.astype(bool), field("short"))
    assert names(outcome_of(thoughts, scored)) == [name for name, _ in cases]


NODES = [Node(ROOT, "abc", 0.5), Node(ROOT, "abc", 0.5), Node(ROOT, "abcd", 0.5)]


@pytest.mark.parametrize(
    ("outcomes", "changes", "sentence"),
    [
        (
            ["no_stop", "no_stop", "rejected"],
            {},
            "no candidate among 3 thoughts: 2 at max_tokens=5 without a stop, 1 rejected by the "
            "scorer",
        ),
        (
            ["complete", "merged", "not_a_number"],
            {},
            "no path ended in an answer, with 1 candidates among 3 thoughts: 1 with NaN or "
            "infinity from the scorer, 1 equal to another",
        ),
        (
            ["no_room", "unscored", "off_grammar"],
            {"at_capacity": True},
            "no candidate among 3 thoughts: 1 out of blocks or context, 1 off their grammar, 1 "
            "without room in the scorer's own cache, room ran out",
        ),
        (["complete"] * 3, {"cut": True}, "the search was cut before its end"),
        (["unused"] * 3, {"at_capacity": True}, "no room: no branch could be made"),
        (["unused"] * 3, {}, "nothing was grown"),
        (["hopeless"] * 3, {}, "no candidate among 3 thoughts: 3 below the threshold"),
    ],
    ids=lambda value: "" if isinstance(value, str) else str(value),
)
def test_an_empty_result_says_why(
    outcomes: list[str], changes: dict[str, bool], sentence: str
) -> None:
    made = with_outcomes(make_result(NODES), ["complete", *outcomes])
    changed = {name: jnp.full(1, value) for name, value in changes.items()}
    assert explain(made.replace(**changed)) == sentence


@pytest.mark.parametrize(
    ("outcome", "sentence"),
    [
        ("empty_prompt", "the root is empty: its prompt has no token"),
        ("no_root", "there is no root: its id names no branch"),
        ("no_room", "no room: the prompt or the first branch found no block"),
    ],
)
def test_a_root_that_cannot_be_searched_from_is_the_reason(outcome: str, sentence: str) -> None:
    assert explain(with_outcomes(make_result([]), [outcome])).startswith(sentence)


def test_fewer_answers_than_places_are_counted_and_all_of_them_need_no_reason() -> None:
    made = with_outcomes(make_result(NODES, answers=[1, 2]), ["complete"] * 4)
    assert explain(made) == "2 of 3 answers were found"
    assert explain(made.replace(answers=jnp.array([[1, 2, 3]]))) == ""


def with_outcomes(made: SearchResult, outcomes: list[str]) -> SearchResult:
    codes = [OUTCOME_NAMES.index(name) for name in outcomes]
    outcome = np.zeros(made.tree.outcome.shape, int)
    outcome[0, : len(codes)] = codes
    return made.replace(tree=made.tree.replace(outcome=jnp.asarray(outcome)))


CONFIG = SampleConfig(n=4, depth=2)
PROMPTS = [[1], [2, 3], [4, 5], [7]]


def not_a_number(model: Model, state: State, thoughts: Thoughts) -> Scored:
    """A reward that has no value for a thought that ends with an even token."""
    last = thoughts.tokens[:, -1]
    value = jnp.where(last % 2 == 0, jnp.nan, thoughts.raw_logprob)
    return Scored(value, path_key(thoughts), jnp.zeros_like(thoughts.complete))


@cache
def sampled() -> tuple[np.ndarray, SearchResult]:
    """Samples without a stop rule under a scorer that gives NaN, one root without a branch."""
    state, ids = start(bigram(), PROMPTS, config=CACHE)
    ids = np.where(np.arange(LANES) == 3, -1, ids)
    run = partial(search.sample, expand=SampleThoughts(2), score=not_a_number)
    _, found = jax.jit(run, static_argnames="config")(
        bigram(), state, jnp.asarray(ids), jax.random.key(0), config=CONFIG
    )
    return ids, jax.device_get(found)


def test_without_a_stop_rule_thoughts_of_full_length_are_complete() -> None:
    assert SampleThoughts(2).ends_by_length
    assert not SampleThoughts(2, StopRules.of([1])).ends_by_length
    _, found = sampled()
    assert np.any(found.answers[:3] != NO_NODE)


def test_nan_of_a_scorer_rejects_the_thought_and_is_told() -> None:
    _, found = sampled()
    tree = found.tree
    made = tree.parent != NO_NODE
    even = (tree.tokens[..., -1] % 2 == 0) & (tree.tokens[..., -1] != NO_TOKEN)
    expected = np.where(even, "not_a_number", "complete")
    got = np.array(OUTCOME_NAMES)[tree.outcome]
    np.testing.assert_array_equal(got[made], expected[made])
    assert np.all(np.isneginf(tree.value[made & even]))
    assert not np.any(np.isnan(found.values))
    assert np.all(got[~made & (np.arange(made.shape[1]) > 0)] == "unused")
    assert names(tree.outcome[:, ROOT]) == ["complete"] * 3 + ["no_root"]
    assert explain(found, 3) == "there is no root: its id names no branch"


@pytest.mark.parametrize(
    ("key", "given"),
    [
        (None, "None"),
        (7, "7"),
        (jax.random.PRNGKey(0), r"an array of raw words \(of a legacy PRNGKey\)"),
    ],
    ids=["none", "int", "PRNGKey"],
)
def test_a_key_that_is_not_typed_is_named(key: Any, given: str) -> None:
    state, ids = start(bigram(), PROMPTS, config=CACHE)
    with pytest.raises(ValueError, match=f"^key is {given}; it takes typed random keys"):
        search.sample(bigram(), state, jnp.asarray(ids), key, CONFIG, expand=SampleThoughts(2))


def test_keys_are_one_or_one_for_each_problem() -> None:
    state, ids = start(bigram(), PROMPTS, config=CACHE)
    keys = jax.random.split(jax.random.key(0), LANES + 1)
    with pytest.raises(ValueError, match=r"key has shape \(5,\); .* one for each of 4 problems"):
        search.sample(bigram(), state, jnp.asarray(ids), keys, CONFIG, expand=SampleThoughts(2))


def test_a_prompt_without_room_is_told_at_the_root() -> None:
    state, ids = start(bigram(), PROMPTS, config=CACHE)
    error = state.cache.error.at[ids[0]].set(CONTEXT_FULL)
    state = state.replace(cache=state.cache.replace(error=error))
    _, _, outcome = search.session.check_roots(state, jnp.asarray(ids))
    assert names(outcome) == ["no_room", "complete", "complete", "complete"]
    cut, _ = engine.truncate(state, jnp.asarray(ids[1:2]), jnp.array([1]))
    _, roots, outcome = search.session.check_roots(cut, jnp.asarray(ids))
    assert names(outcome) == ["no_room", "stale_root", "complete", "complete"]
    assert roots.tolist() == [ids[0], NO_BRANCH, *ids[2:]]
