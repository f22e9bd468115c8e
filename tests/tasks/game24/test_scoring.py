"""The scorer on branches of an engine state, with a model whose verdict is set by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.search import RandomValues, Scored, Scorer, Thoughts
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.token_rules import LINE_TOKENS
from dendrite_jax.tasks.game24.scoring import Game24Scorer
from dendrite_jax.tasks.game24.training.tokenizer_build import build_tokenizer
from dendrite_jax.testing.bigram import BigramModel

PROMPT = "Make 24 from 4 5 6 10\n"
TWO_STEPS = PROMPT + " 10 - 4 = 6 (left: 5 6 6) sure\n 6 * 5 = 30 (left: 6 30) sure\n"
# Path before the step, the step, whether it is legal, the numbers that it leaves.
STEPS = (
    (PROMPT, " 10 - 4 = 6 (left: 5 6 6)", True, "5 6 6"),
    (PROMPT, " 10 - 4 = 6 (left: 6 5 6)", False, "5 6 6"),
    (PROMPT, " 10 - 4 = 7 (left: 5 6 7)", False, "5 6 7"),
    (PROMPT, " 4 / 10 = 2/5 (left: 2/5 5 6)", True, "2/5 5 6"),
    (TWO_STEPS, " 30 - 6 = 24 (left: 24)", True, "24"),
    (TWO_STEPS, " 30 + 6 = 36 (left: 36)", True, "36"),
    (TWO_STEPS, " 24 = 24)", False, None),
    (TWO_STEPS, " 30 + 6 - 4 4 = 36 / 2 (left: 36)", False, None),
)
IDLE = len(STEPS)


@pytest.fixture(scope="module")
def scored() -> dict[str, Scored]:
    """The steps, one a lane and an idle lane behind them, by several scorers."""
    encode = build_tokenizer().encode
    lines = [encode(line).ids for _, line, *_ in STEPS]
    paths = [encode(path).ids + ids for (path, *_), ids in zip(STEPS, lines, strict=True)]
    tokens = np.zeros((len(STEPS), max(map(len, paths))), np.int32)
    thought_tokens = np.full((len(STEPS) + 1, LINE_TOKENS), engine.NO_TOKEN, np.int32)
    for lane, (path, line) in enumerate(zip(paths, lines, strict=True)):
        tokens[lane, : len(path)] = path
        thought_tokens[lane, : len(line)] = line
    model = BigramModel(jax.random.normal(jax.random.key(0), (512, 512)))
    scorers: dict[str, Scorer] = {
        "rules": Game24Scorer(),
        "no rules": Game24Scorer(rules=False),
        "random": RandomValues(Game24Scorer()),
    }

    @jax.jit
    def score(model: BigramModel) -> dict[str, Any]:
        state = engine.init(model, CacheConfig(num_blocks=64, num_slots=12, max_context=64))
        state, ids = engine.open_branches(state, jax.random.split(jax.random.key(1), len(STEPS)))
        counts = jnp.array([len(path) for path in paths])
        state, _ = engine.prefill(model, state, ids, jnp.asarray(tokens), counts)
        thoughts = thoughts_of(ids, [len(line) for line in lines], thought_tokens)
        return {name: scorer(model, state, thoughts) for name, scorer in scorers.items()}

    return jax.device_get(score(model))


def thoughts_of(ids: jax.Array, lengths: list[int], tokens: np.ndarray) -> Thoughts:
    """The thoughts that branches end with, and an idle lane."""
    lanes = len(lengths) + 1
    return Thoughts(
        branch=jnp.append(ids, -1),
        tokens=jnp.asarray(tokens),
        length=jnp.array([*lengths, 0]),
        complete=jnp.ones(lanes, bool),
        failed=jnp.zeros(lanes, bool),
        raw_logprob=jnp.zeros(lanes),
        logprob=jnp.zeros(lanes),
        parent=jnp.zeros(lanes, jnp.int32),
    )


def test_value_is_the_models_verdict_and_rules_reject(scored: dict[str, Scored]) -> None:
    row = jax.random.normal(jax.random.key(0), (512, 512))[vocab.LEFT_CLOSE]
    odds = np.exp(row[vocab.SURE]) / (np.exp(row[vocab.SURE]) + np.exp(row[vocab.IMPOSSIBLE]))
    for lane, (_, line, legal, _) in enumerate(STEPS):
        expected = np.log(odds) if legal else -np.inf
        assert scored["rules"].value[lane] == pytest.approx(expected, abs=1e-6), line
        assert scored["no rules"].value[lane] == pytest.approx(np.log(odds), abs=1e-6)
    assert scored["rules"].value[IDLE] == -np.inf


def test_random_values_keep_the_rules(scored: dict[str, Scored]) -> None:
    values = scored["random"].value[:IDLE]
    legal = np.array([step[2] for step in STEPS])
    assert (np.isneginf(values) == ~legal).all()
    assert ((values[legal] >= 0) & (values[legal] < 1)).all()
    assert len(np.unique(values[legal])) == legal.sum()


@pytest.mark.parametrize("scorer", ["rules", "no rules"])
def test_equal_states_share_a_key(scored: dict[str, Scored], scorer: str) -> None:
    key = scored[scorer].merge_key
    for i, (*_, left) in enumerate(STEPS):
        for j, (*_, other) in enumerate(STEPS):
            same = i == j or (left == other and left is not None)
            assert (key[i] == key[j]) == same


@pytest.mark.parametrize("scorer", ["rules", "no rules", "random"])
def test_one_number_left_is_an_answer(scored: dict[str, Scored], scorer: str) -> None:
    single = [left is not None and " " not in left for *_, left in STEPS]
    assert scored[scorer].answer.tolist() == [*single, False]
