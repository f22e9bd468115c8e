"""A reward model whose cache follows a tree that is kept for the next move."""

from __future__ import annotations

from functools import partial

import jax
import numpy as np
import pytest

from dendrite_jax.engine import Sampling
from dendrite_jax.search import (
    NO_NODE,
    ROOT,
    MctsConfig,
    RewardModel,
    SampleThoughts,
    ValueTokens,
    path_tokens,
)
from dendrite_jax.search.monte_carlo import (
    MctsLoop,
    MctsPieces,
    most_visited,
    read,
    reroot,
    unfinished,
)
from dendrite_jax.search.monte_carlo import advance as advance_search
from dendrite_jax.search.monte_carlo import finish as finish_search
from dendrite_jax.search.monte_carlo import start as start_search
from engine.programs import DECODER_TOLERANCE, LANES, branch_tokens, free, start, tiny_decoder
from engine.sampling_oracle import log_softmax
from models.dense_decoder import dense_logits
from search.programs import CACHE, assert_only_roots_held

pytestmark = pytest.mark.slow

POLICY, REWARD = tiny_decoder(), tiny_decoder(1)
PROMPTS = [[1, 9], [2, 3, 70], [4], [7, 8, 9, 10]]
VERDICTS, WEIGHTS = [5, 9, 60], [20.0, 1.0, 0.001]
SCORER = RewardModel(REWARD, ValueTokens.of(VERDICTS, WEIGHTS))
CONFIG = MctsConfig(
    num_simulations=8, num_children=3, num_expansions=3, tree_expansions=8, max_depth=5
)
EXPAND = SampleThoughts(3, sampling=Sampling(temperature=2.0), any_end=True)
PIECES = MctsPieces(EXPAND, SCORER)


@jax.jit
def advance(loop: MctsLoop) -> MctsLoop:
    """Runs a search to its end."""
    return jax.lax.while_loop(unfinished, partial(advance_search, POLICY, PIECES), loop)


begin = jax.jit(partial(start_search, PIECES), static_argnames="config")
move_root = jax.jit(partial(reroot, PIECES))
look = jax.jit(partial(read, PIECES))
finish = jax.jit(partial(finish_search, PIECES))


def count_nodes(loop: MctsLoop) -> np.ndarray:
    return np.sum(np.asarray(loop.tree.parent) != NO_NODE, axis=1)


def assert_scored_once(loop: MctsLoop, nodes: np.ndarray) -> None:
    totals = look(loop).ledger.totals()
    assert totals["scored"] == totals["generated"] == EXPAND.max_tokens * nodes.sum() > 0


def test_after_a_move_values_are_those_of_the_whole_text() -> None:
    state, ids = start(POLICY, PROMPTS, config=CACHE)
    keys = jax.random.split(jax.random.key(0), LANES)
    loop = advance(begin(state, ids, keys, config=CONFIG))
    assert_scored_once(loop, count_nodes(loop))
    moved = move_root(loop, most_visited(loop), jax.random.key(1))
    kept = count_nodes(moved)
    loop = advance(moved)
    assert_scored_once(loop, count_nodes(loop) - kept)  # of the second search alone

    tree = jax.device_get(look(loop).tree)
    roots = loop.tree.branch[:, ROOT]
    held, length = map(np.asarray, branch_tokens(loop.state, roots))
    for problem in range(LANES):
        nodes = np.flatnonzero(tree.parent[problem] != NO_NODE)
        assert len(nodes) > kept[problem]
        text = held[problem, : length[problem]].tolist()
        for node in nodes.tolist():
            path = [token for thought in path_tokens(tree, problem, node) for token in thought]
            whole = np.array([[*text, *path]])
            verdicts = dense_logits(REWARD.config, REWARD.params, whole)[0, -1, VERDICTS]
            reward = np.log(np.exp(log_softmax(verdicts)) @ WEIGHTS)
            tolerance = 2 * DECODER_TOLERANCE * np.max(np.abs(verdicts))
            assert abs(tree.value[problem, node] - reward) < tolerance
    state, _ = finish(loop)
    assert_only_roots_held(free(state, roots), ids)
