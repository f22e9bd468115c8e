"""Tree of thoughts against plain Python that replays the draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dendrite_jax.engine import Sampling, StopRules
from dendrite_jax.search import (
    NO_NODE,
    SampleThoughts,
    SearchResult,
    SearchTree,
    TreeOfThoughtsConfig,
    path_tokens,
)
from engine.generation_oracle import Stops
from engine.programs import LANES, VOCAB, bigram, pad, start
from engine.sampling_oracle import Knobs
from search.judge import Judge
from search.levels.found_trees import assert_found
from search.levels.thought_oracle import Found, search
from search.programs import CACHE, assert_only_roots_held, tree_of_thoughts

MODEL = bigram()
CONFIG = TreeOfThoughtsConfig(breadth=2, proposals=6, depth=3)


class Variant(NamedTuple):
    """What is static in a search."""

    config: TreeOfThoughtsConfig
    max_tokens: int
    knobs: Knobs
    sampling: Sampling
    commit: tuple[int, ...]


PLAIN_SEARCH = Variant(CONFIG, 4, Knobs(), Sampling(), ())
OTHER_SEARCH = Variant(
    TreeOfThoughtsConfig(breadth=3, proposals=5, depth=4),
    3,
    Knobs(temperature=1.5, top_k=7),
    Sampling(temperature=1.5, top_k=7),
    (4, 1),
)

TOKEN = st.integers(0, VOCAB - 1)
JUDGES = st.builds(
    Judge.of,
    weight=st.integers(1, 96),
    merge=st.sampled_from([2, 3, 5, 1000]),
    reject=st.sampled_from([2, 3, 101]),
    answer=st.integers(-1, VOCAB - 1),
)
STOPS = st.lists(TOKEN, min_size=2, max_size=2, unique=True)


def run(
    variant: Variant,
    prompts: Sequence[Sequence[int]],
    seed: int,
    stops: Sequence[int],
    judge: Judge,
) -> tuple[SearchResult, list[Found | None]]:
    """What the search finds and what it should."""
    state, ids = start(MODEL, prompts, config=CACHE)
    keys = jax.random.split(jax.random.key(seed), LANES)
    words = np.asarray(jax.random.key_data(keys))
    state, found = tree_of_thoughts(
        MODEL,
        state,
        ids,
        keys,
        config=variant.config,
        expand=SampleThoughts(variant.max_tokens, StopRules.of(stops), variant.sampling),
        score=judge,
        commit=np.array(variant.commit) if variant.commit else None,
    )
    assert_only_roots_held(state, ids)
    expected = [
        search(
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
    return jax.device_get(found), expected


@pytest.mark.slow
@pytest.mark.parametrize("variant", [PLAIN_SEARCH, OTHER_SEARCH])
@given(
    prompts=st.lists(st.lists(TOKEN, min_size=1, max_size=5), min_size=LANES, max_size=LANES),
    seed=st.integers(0, 2**31),
    stops=STOPS,
    judge=JUDGES,
)
@settings(max_examples=25)
def test_every_problem_is_the_replay_of_its_own_search(
    variant: Variant, prompts: list[list[int]], seed: int, stops: list[int], judge: Judge
) -> None:
    found, replays = run(variant, prompts, seed, stops, judge)
    expected = [replay for replay in replays if replay]
    assume(len(expected) == LANES)
    for problem, replay in enumerate(expected):
        assert_found(found, problem, replay)


JUDGE = Judge.of(weight=7, merge=1000, reject=101, answer=3)


@pytest.mark.slow
def test_a_path_spells_the_branch_of_a_node() -> None:
    prompts = [[1], [2, 3], [4], [5, 6]]
    found, expected = run(PLAIN_SEARCH, prompts, 5, [0, 8], JUDGE)
    deepest = 0
    for problem, replay in enumerate(expected):
        assert replay is not None
        for node in replay.nodes:
            thoughts = path_tokens(found.tree, problem, node.number)
            assert prompts[problem] + [t for thought in thoughts for t in thought] == node.path
            deepest = max(deepest, len(thoughts))
    assert deepest == CONFIG.depth


@pytest.mark.parametrize("node", [NO_NODE, 2, 99])
def test_a_node_that_is_not_there_has_no_path(node: int) -> None:
    tree = SearchTree.empty(problems=1, nodes=4, thought_tokens=2)
    tree = tree.write(jnp.int32(1), parent=jnp.array([[0]]), tokens=jnp.array([[[5, -1]]]))
    assert path_tokens(tree, 0, 0) == []
    assert path_tokens(tree, 0, 1) == [[5]]
    with pytest.raises(ValueError, match=f"node is {node}; problem 0 has no such node"):
        path_tokens(tree, 0, node)


@pytest.mark.slow
def test_a_root_that_is_not_held_has_no_tree() -> None:
    state, ids = start(MODEL, [[1], [2], [3], [4]], config=CACHE)
    keys = jax.random.split(jax.random.key(0), LANES)
    roots = pad([ids[0], -1, CACHE.num_slots, 77])
    state, found = tree_of_thoughts(
        MODEL,
        state,
        roots,
        keys,
        config=CONFIG,
        expand=SampleThoughts(4, StopRules.of([0, 8])),
        score=JUDGE,
        commit=None,
    )
    assert np.all(np.asarray(found.tree.parent)[1:] == NO_NODE)
    assert np.all(np.asarray(found.answers)[1:] == NO_NODE)
    assert set(np.flatnonzero(state.cache.alive)) == set(ids)
    expected = search(
        [1], np.asarray(jax.random.key_data(keys))[0], CONFIG, 4, Knobs(), Stops((0, 8)), JUDGE
    )
    assert expected is not None
    assert_found(jax.device_get(found), 0, expected)


@pytest.mark.parametrize("field", ["breadth", "proposals", "depth"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_bad_config_is_refused(field: str, value: int) -> None:
    fields: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=f"{field} is {value}; it must be at least 1"):
        TreeOfThoughtsConfig(**fields)


def test_fewer_proposals_than_are_kept_are_refused() -> None:
    with pytest.raises(ValueError, match="proposals is 4; it must be at least the breadth, 5"):
        TreeOfThoughtsConfig(breadth=5, proposals=4)
