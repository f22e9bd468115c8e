"""The search on the engine against plain Python that replays the draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dendrite_jax.engine import NO_TOKEN, Model, Sampling, State, StopRules
from dendrite_jax.search import (
    NO_NODE,
    SampleThoughts,
    Scored,
    SearchResult,
    Thoughts,
    mean_loglikelihood,
)
from dendrite_jax.search import mcts as search
from dendrite_jax.search.monte_carlo import MctsConfig, Uct, even_prior
from engine.generation_oracle import Stops
from engine.programs import DECODER_TOLERANCE, LANES, VOCAB, bigram, pad, start, tiny_decoder
from engine.sampling_oracle import Knobs, log_softmax
from models.dense_decoder import dense_logits
from search.judge import Judge
from search.monte_carlo.oracle import Doubt, Search
from search.monte_carlo.programs import mcts, replay, share
from search.programs import CACHE, assert_only_roots_held

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
"""Of sums of a few log-probabilities of size 10 at most, in float32."""
MODEL = bigram()


class Variant(NamedTuple):
    """What is static in a search."""

    config: MctsConfig
    max_tokens: int
    knobs: Knobs
    sampling: Sampling
    commit: tuple[int, ...]


PLAIN_SEARCH = Variant(
    MctsConfig(
        num_simulations=20,
        num_children=4,
        num_expansions=6,
        max_depth=3,
        num_answers=3,
        rule=Uct(0.5),
    ),
    4,
    Knobs(),
    Sampling(),
    (),
)
OTHER_SEARCH = Variant(
    MctsConfig(
        num_simulations=15,
        num_children=3,
        num_expansions=8,
        max_depth=4,
        inner_children=2,
        batch=2,
        num_answers=2,
        dead_value=0.1,
        rule=Uct(1.0),
    ),
    3,
    Knobs(temperature=1.5, top_k=7),
    Sampling(temperature=1.5, top_k=7),
    (4, 1),
)

TOKEN = st.integers(0, VOCAB - 1)
JUDGES = st.builds(
    Judge.of,
    weight=st.integers(1, 96),
    merge=st.sampled_from([3, 5, 1000]),
    reject=st.sampled_from([2, 3, 101]),
    answer=st.integers(-1, VOCAB - 1),
)
JUDGE = Judge.of(weight=7, merge=1000, reject=101, answer=3)


def run(
    variant: Variant,
    prompts: Sequence[Sequence[int]],
    seed: int,
    stops: Sequence[int],
    judge: Judge,
) -> tuple[SearchResult, list[Search]]:
    """What the search finds, and its replay, which is yet to be run."""
    state, ids = start(MODEL, prompts, config=CACHE)
    keys = jax.random.split(jax.random.key(seed), LANES)
    words = np.asarray(jax.random.key_data(keys))
    state, found = mcts(
        MODEL,
        state,
        ids,
        keys,
        config=variant.config,
        expand=SampleThoughts(variant.max_tokens, StopRules.of(stops), variant.sampling),
        score=judge,
        prior=even_prior,
        worth=share,
        commit=np.array(variant.commit) if variant.commit else None,
    )
    assert_only_roots_held(state, ids)
    replays = [
        replay(
            prompt,
            words[problem],
            variant.config,
            variant.max_tokens,
            variant.knobs,
            Stops((stops[0], stops[1])),
            judge,
            variant.commit,
        )
        for problem, prompt in enumerate(prompts)
    ]
    return jax.device_get(found), replays


def assert_found(found: SearchResult, problem: int, expected: Search) -> None:
    tree, nodes = found.tree, expected.nodes()
    assert np.all(tree.parent[problem, len(nodes) :] == NO_NODE)
    assert np.all(tree.tokens[problem, len(nodes) :] == NO_TOKEN)
    for node in nodes:
        row, thought = (problem, node.number), node.payload
        assert tree.visits[row] == node.visits
        assert tree.depth[row] == thought.depth
        if node.parent is None:
            continue
        assert tree.parent[row] == (node.parent.number if thought.tokens else NO_NODE)
        tokens = pad(thought.tokens, NO_TOKEN, tree.tokens.shape[2])
        assert tree.tokens[row].tolist() == tokens.tolist()
        assert tree.value[row] == thought.value
        assert tree.terminal[row] == thought.ends
        assert tree.raw_logprob[row] == pytest.approx(thought.raw_logprob, abs=TOLERANCE)
        assert tree.logprob[row] == pytest.approx(thought.logprob, abs=TOLERANCE)
    ends = [node for node in nodes[1:] if node.prior > -np.inf and node.payload.ends]
    ends.sort(key=lambda node: (-node.payload.value, node.number))
    count = found.answers.shape[1]
    best = ends[:count]
    answers = pad([node.number for node in best], NO_NODE, count)
    assert found.answers[problem].tolist() == answers.tolist()
    for rank, node in enumerate(best):
        assert found.values[problem, rank] == node.payload.value
        thoughts = []
        while node.parent is not None:
            thoughts.append(node.payload.tokens)
            node = node.parent
        path = [token for tokens in reversed(thoughts) for token in tokens]
        assert found.length[problem, rank] == len(path)
        path = pad(path, NO_TOKEN, found.tokens.shape[2]).tolist()
        assert found.tokens[problem, rank].tolist() == path
    assert np.all(np.isneginf(found.values[problem, len(best) :]))
    assert not found.at_capacity[problem]


@pytest.mark.parametrize("variant", [PLAIN_SEARCH, OTHER_SEARCH])
@given(
    prompts=st.lists(st.lists(TOKEN, min_size=1, max_size=4), min_size=LANES, max_size=LANES),
    seed=st.integers(0, 2**31),
    stops=st.lists(TOKEN, min_size=2, max_size=2, unique=True),
    judge=JUDGES,
)
@settings(max_examples=10)
def test_every_problem_is_the_replay_of_its_own_search(
    variant: Variant, prompts: list[list[int]], seed: int, stops: list[int], judge: Judge
) -> None:
    found, replays = run(variant, prompts, seed, stops, judge)
    for problem, expected in enumerate(replays):
        try:
            expected.run()
        except Doubt:
            assume(False)
        assert_found(found, problem, expected)
    thoughts = [node.payload for expected in replays for node in expected.nodes()]
    sampled = [len(thought.tokens) for thought in thoughts if thought.tokens]
    assert found.ledger.totals()["forks"] == len(sampled)
    assert found.ledger.totals()["generated"] == sum(sampled)


PROMPTS = [[1], [2, 3], [4], [5, 6]]


def test_the_search_goes_deep_and_answers() -> None:
    found, replays = run(PLAIN_SEARCH, PROMPTS, 5, [0, 8], JUDGE)
    for problem, expected in enumerate(replays):
        expected.run()
        assert_found(found, problem, expected)
    assert np.max(found.tree.depth) == PLAIN_SEARCH.config.max_depth
    assert np.sum(found.answers[:, 0] != NO_NODE) >= 3


def test_the_most_visited_answers_come_out_when_asked_for() -> None:
    config = PLAIN_SEARCH.config
    by_visits = MctsConfig(**{**vars(config), "rank_by_visits": True})
    found, _ = run(PLAIN_SEARCH._replace(config=by_visits), PROMPTS, 5, [0, 8], JUDGE)
    for problem in range(LANES):
        answers = found.answers[problem][found.answers[problem] != NO_NODE]
        visits = found.tree.visits[problem]
        assert found.values[problem][: answers.size].tolist() == visits[answers].tolist()
        ends = found.tree.terminal[problem] & np.isfinite(found.tree.value[problem])
        assert np.max(visits[answers], initial=0) == np.max(visits[ends], initial=0)


def test_a_root_that_is_not_held_has_no_tree() -> None:
    state, ids = start(MODEL, PROMPTS, config=CACHE)
    keys = jax.random.split(jax.random.key(0), LANES)
    state, found = mcts(
        MODEL,
        state,
        pad([ids[0], -1, CACHE.num_slots, 77]),
        keys,
        config=PLAIN_SEARCH.config,
        expand=SampleThoughts(4, StopRules.of([0, 8])),
        score=JUDGE,
        prior=even_prior,
        worth=share,
        commit=None,
    )
    assert np.all(np.asarray(found.tree.parent)[1:] == NO_NODE)
    assert np.all(np.asarray(found.answers)[1:] == NO_NODE)
    assert found.at_capacity.tolist() == [False, False, True, True]
    assert set(np.flatnonzero(state.cache.alive)) == set(ids)
    words = np.asarray(jax.random.key_data(keys))[0]
    expected = replay([1], words, PLAIN_SEARCH.config, 4, Knobs(), Stops((0, 8)), JUDGE)
    expected.run()
    assert_found(jax.device_get(found), 0, expected)


def some_nan(model: Model, state: State, thoughts: Thoughts) -> Scored:
    """NaN and infinity for two of three thoughts."""
    scored = mean_loglikelihood(model, state, thoughts)
    kind = thoughts.tokens[:, 0] % 3
    value = jnp.where(kind == 0, jnp.nan, jnp.where(kind == 1, jnp.inf, scored.value))
    return scored._replace(value=value)


def test_scores_that_are_no_numbers_reject_and_do_not_spread() -> None:
    state, ids = start(MODEL, PROMPTS, config=CACHE)
    config = PLAIN_SEARCH.config
    keys = jax.random.split(jax.random.key(2), LANES)
    expand = SampleThoughts(4, StopRules.of([0, 8]))
    run_search = jax.jit(
        lambda state: search(
            MODEL, state, jnp.asarray(ids), keys, config, expand=expand, score=some_nan
        )
    )
    state, found = run_search(state)
    assert_only_roots_held(state, ids)
    tree = jax.device_get(found.tree)
    made = tree.parent != NO_NODE
    bad = made & (tree.tokens[..., 0] % 3 < 2)
    assert np.any(bad)
    assert np.all(tree.visits[bad] == 0)
    assert not np.any(np.isnan(tree.value))
    assert np.any(made & (tree.visits > 0))
    answers = np.asarray(found.answers)
    assert not np.any(np.take_along_axis(bad, np.maximum(answers, 0), 1)[answers != NO_NODE])


def test_every_log_probability_is_that_of_the_dense_decoder() -> None:
    model = tiny_decoder()
    prompts = [[3, 1, 4], [1, 5, 9, 2, 6], [53], [58, 97]]
    state, ids = start(model, prompts, config=CACHE)
    expand = SampleThoughts(4, StopRules.of(), Sampling(temperature=0.7), any_end=True)
    commit = jnp.array([7, 8])
    config = MctsConfig(num_simulations=8, num_children=3, num_expansions=4, max_depth=3)
    keys = jax.random.split(jax.random.key(1), LANES)
    run_search = jax.jit(
        lambda state: search(
            model, state, jnp.asarray(ids), keys, config, expand=expand, commit=commit
        )
    )
    state, found = run_search(state)
    assert_only_roots_held(state, ids)
    tree = jax.device_get(found.tree)
    deepest = 0
    for problem, prompt in enumerate(prompts):
        for node in np.flatnonzero(tree.parent[problem] != NO_NODE).tolist():
            chain = [node]
            while tree.parent[problem, chain[-1]] > 0:
                chain.append(int(tree.parent[problem, chain[-1]]))
            deepest = max(deepest, len(chain))
            path = list(prompt)
            for index, member in enumerate(reversed(chain)):
                path += [7, 8] if index else []
                path += tree.tokens[problem, member].tolist()
            tokens = np.array(path[-4:])
            logits = dense_logits(model.config, model.params, np.array([path]))[0, -5:-1]
            tolerance = 8 * DECODER_TOLERANCE * np.max(np.abs(logits))
            raw = log_softmax(logits)[np.arange(4), tokens].sum()
            scaled = log_softmax(logits / 0.7)[np.arange(4), tokens].sum()
            assert abs(tree.raw_logprob[problem, node] - raw) < tolerance
            assert abs(tree.logprob[problem, node] - scaled) < tolerance / 0.7
    assert deepest >= 2


@pytest.mark.parametrize("field", ["max_depth", "num_answers", "num_children", "batch"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_bad_config_is_refused(field: str, value: int) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=f"{field} is {value}; it must be at least 1"):
        MctsConfig(**fields)


@pytest.mark.parametrize("value", [0, 5])
def test_a_bad_number_of_inner_children_is_refused(value: int) -> None:
    message = f"inner_children is {value}; it must be from 1 to num_children, 4"
    with pytest.raises(ValueError, match=message):
        MctsConfig(num_children=4, inner_children=value)
