"""Nodes of every search against dense recomputation: the policy's logprobs, the reward's values.

Both models are decoders with caches that the searches fork and free; the oracle has no cache and
runs the whole text of each node's path.
"""

from __future__ import annotations

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.engine import Sampling
from dendrite_jax.models import Decoder
from dendrite_jax.search import (
    NO_NODE,
    BeamSearchConfig,
    RewardModel,
    SampleThoughts,
    SearchResult,
    ValueTokens,
    path_tokens,
)
from engine.programs import DECODER_TOLERANCE, LANES, bigram, start, tiny_decoder
from engine.sampling_oracle import log_softmax
from models.dense_decoder import dense_logits
from models.tiny_models import raw_bits
from search.every_search import DISTINCT_SEARCHES, THOUGHT_SEARCHES
from search.programs import CACHE, assert_only_roots_held, beam_search

pytestmark = pytest.mark.slow

POLICY, REWARD = tiny_decoder(), tiny_decoder(1)
PROMPTS = [(raw_bits(6, f"prompt {n}", n) % 128).astype(int).tolist() for n in (1, 7, 4, 10)]
COMMIT = [17, 4]
THOUGHT = 3
TEMPERATURE = 2.0
VERDICTS, WEIGHTS = [5, 9, 60], [20.0, 1.0, 0.001]
LOOKS_AHEAD = {"dvts"}
COMMITS = {"tree_of_thoughts", "depth_first"}
SEARCHES = pytest.mark.parametrize(
    "name", [name for name in DISTINCT_SEARCHES if name in THOUGHT_SEARCHES]
)


@cache
def found(name: str) -> SearchResult:
    # Roots out of order, so that the reward model's branches have other ids than the search's.
    held = [2, 0, 3, 1]
    state, ids = start(POLICY, [PROMPTS[n] for n in held], config=CACHE)
    ids = ids[np.argsort(held)]
    keys = jax.random.split(jax.random.key(2), LANES)
    run = jax.jit(THOUGHT_SEARCHES[name].bound(), donate_argnums=1)
    scorer = RewardModel(REWARD, ValueTokens.of(VERDICTS, WEIGHTS))
    state, result = run(
        POLICY,
        state,
        ids,
        keys,
        expand=SampleThoughts(THOUGHT, sampling=Sampling(temperature=TEMPERATURE), any_end=True),
        score=scorer,
        commit=jnp.array(COMMIT) if name in COMMITS else None,
    )
    assert_only_roots_held(state, ids)
    return jax.device_get(result)


def dense(model: Decoder, text: list[int]) -> np.ndarray:
    return dense_logits(model.config, model.params, np.array([text]))[0]


def text_of(name: str, problem: int, node: int) -> list[int]:
    """All that the branch of a node held."""
    result, text = found(name), list(PROMPTS[problem])
    for place, thought in enumerate(path_tokens(result.tree, problem, node)):
        text += [*(COMMIT if place and name in COMMITS else []), *thought]
    return text


@SEARCHES
def test_logprobs_and_rewards_are_those_of_the_whole_text(name: str) -> None:
    tree = found(name).tree
    for problem in range(LANES):
        nodes = np.flatnonzero(tree.parent[problem] != NO_NODE)
        assert len(nodes) > 3
        for node in nodes.tolist():
            text = text_of(name, problem, node)
            thought = text[-THOUGHT:]
            logits = dense(POLICY, text)[-THOUGHT - 1 : -1]
            tolerance = 2 * THOUGHT * DECODER_TOLERANCE * np.max(np.abs(logits))
            for field, heat in ((tree.raw_logprob, 1.0), (tree.logprob, TEMPERATURE)):
                expected = log_softmax(logits / heat)[np.arange(THOUGHT), thought].sum()
                assert abs(field[problem, node] - expected) < tolerance
            verdicts = dense(REWARD, text)[-1, VERDICTS]
            reward = np.log(np.exp(log_softmax(verdicts)) @ WEIGHTS)
            tolerance = 2 * DECODER_TOLERANCE * np.max(np.abs(verdicts))
            assert abs(tree.value[problem, node] - reward) < tolerance


def test_logprobs_of_beams_are_those_of_the_whole_text() -> None:
    state, ids = start(POLICY, PROMPTS, config=CACHE)
    config = BeamSearchConfig(width=4, max_new_tokens=4, groups=2, diversity_penalty=0.5)
    stops = jnp.arange(0, 128, 16)
    _, result = beam_search(POLICY, state, ids, None, config=config, stop_tokens=stops)
    tree = jax.device_get(result.tree)
    for problem in range(LANES):
        for node in np.flatnonzero(tree.parent[problem] != NO_NODE).tolist():
            path = [token for (token,) in path_tokens(tree, problem, node)]
            logits = dense(POLICY, PROMPTS[problem] + path)[-2]
            tolerance = 2 * DECODER_TOLERANCE * np.max(np.abs(logits))
            expected = log_softmax(logits)[path[-1]]
            assert abs(tree.raw_logprob[problem, node] - expected) < tolerance
            assert tree.terminal[problem, node] == (path[-1] % 16 == 0 or len(path) == 4)


@SEARCHES
def test_the_reward_model_runs_every_token_once(name: str) -> None:
    result = found(name)
    totals = result.ledger.totals()
    assert totals["scored"] == totals["generated"]
    recorded = int(np.sum(result.tree.tokens >= 0))
    assert totals["scored"] > recorded if name in LOOKS_AHEAD else totals["scored"] == recorded


def test_a_reward_model_of_another_vocabulary_is_refused() -> None:
    state, ids = start(bigram(), [[1]], config=CACHE)
    scorer = RewardModel(REWARD, ValueTokens.of([1], [1.0]))
    run = jax.jit(THOUGHT_SEARCHES["sample"].bound())
    with pytest.raises(ValueError, match=r"model.vocab_size of the reward model is 128; .* 11"):
        run(
            bigram(),
            state,
            jnp.asarray(ids),
            jax.random.key(0),
            expand=SampleThoughts(2),
            score=scorer,
        )
