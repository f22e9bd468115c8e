"""The scorers that need no task, by hand."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.engine import NO_TOKEN, State
from dendrite_jax.search import (
    SURE_LIKELY_IMPOSSIBLE,
    AnswerTokens,
    Piece,
    RandomValues,
    Scored,
    Scorer,
    Thoughts,
    ValueHead,
    ValueTokens,
    mean_loglikelihood,
    path_key,
    sum_loglikelihood,
    thought_key,
    usable_value,
)
from dendrite_jax.search.score.scored import as_scored, without_answers
from engine.generation_oracle import TABLE
from engine.programs import LANES, VOCAB, bigram, pad, start
from engine.sampling_oracle import log_softmax
from models.tiny_models import uniform
from search.judge import Judge

MODEL = bigram()


def thoughts(branch: np.ndarray | None = None) -> Thoughts:
    """Four thoughts: two equal ones of different parents, and one without tokens."""
    return Thoughts(
        branch=jnp.asarray(np.arange(LANES) if branch is None else branch),
        tokens=jnp.array([[5, 6, 0], [5, 6, 0], [7, 0, NO_TOKEN], [NO_TOKEN] * 3]),
        length=jnp.array([3, 3, 2, 0]),
        complete=jnp.array([True, True, True, False]),
        failed=jnp.zeros(LANES, bool),
        raw_logprob=jnp.array([-3.0, -6.0, -1.0, 0.0]),
        logprob=jnp.zeros(LANES),
        parent=jnp.array([1, 2, 1, 1]),
    )


@jax.jit
def score(scorer: Scorer, state: State, thoughts: Thoughts) -> Scored:
    return as_scored(scorer(MODEL, state, thoughts), thoughts)


def test_different_rows_have_different_keys() -> None:
    rows = [row for n in range(4) for row in product(range(9), repeat=n)]
    padded = np.array([pad(row, NO_TOKEN, 3) for row in rows])
    keys = np.asarray(thought_key(jnp.asarray(padded)))
    assert keys.dtype == np.int32
    assert len(set(keys.tolist())) == len(rows)
    again = np.asarray(thought_key(jnp.asarray(padded[::-1])))
    np.testing.assert_array_equal(again[::-1], keys)


def test_equal_thoughts_of_different_parents_are_different_paths() -> None:
    keys = np.asarray(path_key(thoughts())).tolist()
    assert len(set(keys)) == LANES
    same_parent = thoughts()._replace(parent=jnp.array([4, 4, 4, 4]))
    keys = np.asarray(path_key(same_parent)).tolist()
    assert keys[0] == keys[1]
    assert len(set(keys)) == LANES - 1


def test_mean_loglikelihood_is_per_token() -> None:
    state, _ = start(MODEL, [[1]] * LANES)
    scored = mean_loglikelihood(MODEL, state, thoughts())
    assert scored.value.tolist() == pytest.approx([-1.0, -2.0, -0.5, 0.0])
    assert scored.answer.tolist() == [False] * LANES
    np.testing.assert_array_equal(scored.merge_key, path_key(thoughts()))


def test_sum_loglikelihood_is_of_the_whole_thought() -> None:
    state, _ = start(MODEL, [[1]] * LANES)
    scored = sum_loglikelihood(MODEL, state, thoughts())
    assert scored.value.tolist() == [-3.0, -6.0, -1.0, 0.0]
    np.testing.assert_array_equal(scored.merge_key, path_key(thoughts()))


@pytest.mark.parametrize(
    ("tokens", "weights"), [([7, 2], [1.0, 0.0]), ([7, 2, 5], SURE_LIKELY_IMPOSSIBLE)]
)
def test_value_tokens_weigh_the_verdicts_of_the_model(
    tokens: list[int], weights: Sequence[float]
) -> None:
    state, ids = start(MODEL, [[1], [2], [3], [4]])
    scored = score(ValueTokens.of(tokens, weights), state, thoughts(ids[::-1]))
    verdicts = np.exp(log_softmax(TABLE[[4, 3, 2, 1]][:, tokens]))
    np.testing.assert_allclose(scored.value, np.log(verdicts @ weights), rtol=0, atol=1e-6)
    assert scored.answer.tolist() == [False] * LANES
    np.testing.assert_array_equal(scored.merge_key, path_key(thoughts()))


@pytest.mark.parametrize(
    ("tokens", "weights", "message"),
    [
        ([], [], "weights are 0 for 0 tokens; give one each"),
        ([1, 2], [1.0], "weights are 1 for 2 tokens; give one each"),
        ([1, 2], [1.0, -0.5], r"weights are \[1.0, -0.5\]; each must be 0 or more"),
        ([1], [float("nan")], r"weights are \[nan\]; each must be 0 or more"),
    ],
)
def test_bad_verdicts_are_refused(tokens: list[int], weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ValueTokens.of(tokens, weights)


def test_a_value_head_reads_the_hidden_state_under_a_scorers_rules() -> None:
    judge = Judge.of(weight=7, merge=1000, reject=5, answer=6)
    state, ids = start(MODEL, [[1, 2], [3], [5, 3], [2, 2]])
    first, second = uniform(1, "first", (3, VOCAB)), uniform(1, "second", (1, 3))
    weights, biases = (
        (jnp.asarray(first), jnp.asarray(second)),
        (jnp.full(3, 0.1), jnp.full(1, -0.2)),
    )
    head = ValueHead(weights, biases, scorer=judge)
    scored, rules = score(head, state, thoughts(ids)), score(judge, state, thoughts(ids))
    rejected = np.isneginf(rules.value)
    assert 0 < rejected.sum() < LANES
    hidden = TABLE[[2, 3, 3, 2]].astype(np.float64)  # of a bigram model: the last token's row
    logit = np.maximum(hidden @ first.T + 0.1, 0) @ second[0] - 0.2
    expected = np.where(rejected, -np.inf, 1 / (1 + np.exp(-logit)))
    np.testing.assert_allclose(scored.value, expected, rtol=1e-5)
    np.testing.assert_array_equal(scored.merge_key, rules.merge_key)
    np.testing.assert_array_equal(scored.answer, rules.answer)


def test_a_thought_that_ends_with_an_answer_token_is_an_answer() -> None:
    state, _ = start(MODEL, [[1]] * LANES)
    plain = score(AnswerTokens(None, jnp.array([3, 6])), state, thoughts())
    assert plain.answer.tolist() == [False] * LANES  # a 6 inside is not at the end
    found = score(AnswerTokens(None, jnp.array([3, 0])), state, thoughts())
    assert found.answer.tolist() == [True, True, True, False]
    np.testing.assert_array_equal(found.value, mean_loglikelihood(MODEL, state, thoughts()).value)


def test_a_value_that_is_no_number_is_no_candidate() -> None:
    scored = Scored(jnp.array([1.0, jnp.nan, jnp.inf, 3.0]), jnp.arange(4), jnp.zeros(4, bool))
    value = usable_value(scored, thoughts())
    assert value.tolist() == [1.0, -np.inf, -np.inf, -np.inf]  # the last is not complete


def test_random_values_are_a_branchs_own_and_keep_the_rules() -> None:
    judge = Judge.of(weight=7, merge=1000, reject=5, answer=6)
    state, ids = start(MODEL, [[1, 2], [3], [5, 3], [2, 2]])
    plain = score(judge, state, thoughts(ids))
    found = score(RandomValues(judge), state, thoughts(ids))
    rejected = np.isneginf(plain.value)
    assert 0 < rejected.sum() < LANES
    np.testing.assert_array_equal(np.isneginf(found.value), rejected)
    np.testing.assert_array_equal(found.merge_key, plain.merge_key)
    np.testing.assert_array_equal(found.answer, plain.answer)
    accepted = np.asarray(found.value)[~rejected]
    assert np.all((accepted >= 0) & (accepted < 1))
    assert len(set(accepted.tolist())) == len(accepted)
    moved = score(RandomValues(judge), state, thoughts(ids[::-1]))
    np.testing.assert_array_equal(moved.value[::-1], found.value)


def test_a_control_of_a_scorer_with_arrays_is_traced_once() -> None:
    traces = 0

    def counted(scorer: Scorer) -> jax.Array:
        nonlocal traces
        traces += 1
        return jax.tree.leaves(scorer)[0]

    call = jax.jit(counted)
    for good in (1, 2, 3):
        verdicts = ValueTokens(jnp.full(2, good), jnp.ones(2))
        assert call(RandomValues(verdicts))[0] == good
    assert traces == 1


def test_an_array_of_values_is_a_judgement() -> None:
    given = as_scored(jnp.array([1, 2, 3, 4]), thoughts())
    expected = without_answers(jnp.array([1.0, 2.0, 3.0, 4.0]), thoughts())
    jax.tree.map(np.testing.assert_array_equal, given, expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (jnp.zeros((4, 1)), r"score gave a value of shape \[4, 1\]; it must be \[4\]"),
        (jnp.zeros(()), r"score gave a value of shape \[\]; it must be \[4\]"),
        ((jnp.zeros(4), jnp.zeros(4)), "score gave a tuple; it must give a Scored, or an array"),
        (None, "score gave a NoneType; it must give a Scored"),
        (
            Scored(jnp.zeros(4), jnp.zeros(3, int), jnp.zeros(4, bool)),
            r"score gave a merge_key of shape \[3\]; it must be \[4\]",
        ),
        (
            Scored(jnp.zeros(4), jnp.zeros(4, int), jnp.zeros((), bool)),
            r"score gave a answer of shape \[\]; it must be \[4\]",
        ),
    ],
)
def test_another_judgement_is_refused_in_a_sentence(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        as_scored(given, thoughts())


class Holder(Piece):
    """A piece with a function, an array and another piece in it."""

    function: Any
    array: Any
    piece: Any = None


def test_functions_of_a_piece_are_static_and_arrays_are_leaves() -> None:
    held = Holder(mean_loglikelihood, jnp.arange(3), AnswerTokens(sum_loglikelihood, jnp.ones(1)))
    leaves, found = jax.tree.flatten(held)
    shape: Any = found
    assert [leaf.shape for leaf in leaves] == [(3,), (1,)]
    again = jax.tree.unflatten(shape, leaves)
    assert again.function is mean_loglikelihood
    assert again.piece.scorer is sum_loglikelihood
    assert jax.tree.structure(held.replace(function=sum_loglikelihood)) != shape
    assert jax.tree.structure(held.replace(array=jnp.ones(5))) == shape
    # A pytree that can be called is not a function.
    assert len(jax.tree.leaves(Holder(AnswerTokens(None, jnp.ones(1)), None))) == 1
