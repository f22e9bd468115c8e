"""Search at the level of tokens: children are the likeliest tokens that a grammar allows."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from llguidance import LLMatcher

from dendrite_jax.cache import CacheConfig, debug
from dendrite_jax.engine import State
from dendrite_jax.search import AnswerTokens, MctsConfig, SearchResult, mcts, mean_loglikelihood
from dendrite_jax.search.monte_carlo import Puct, TopTokens, likelihood_prior
from engine.constraint_programs import (
    END,
    TOKENS,
    constrain,
    model,
    prompt,
    regex,
    regex_root,
)
from engine.programs import LANES, start
from engine.sampling_oracle import log_softmax
from grammar.oracle import mask_of

pytestmark = pytest.mark.slow

CHILDREN = 3
CONFIG = MctsConfig(
    num_simulations=24,
    num_children=CHILDREN,
    num_expansions=8,
    max_depth=6,
    rule=Puct(c_init=2.0),
)
CACHE = CacheConfig(num_blocks=160, num_slots=100, max_context=16, block_size=4, debug=True)
PROMPTS = ["a", "{", "name", "12"]
PATTERN = "(ab|abc)+"
LOGPROBS = log_softmax(np.asarray(model().table))
violations = jax.jit(debug.violations)


def opened() -> tuple[State, np.ndarray]:
    """A root for each prompt."""
    return start(model(), [prompt(text) for text in PROMPTS], config=CACHE)


def run(state: State, ids: np.ndarray) -> tuple[State, SearchResult]:
    search = jax.jit(
        lambda state, keys: mcts(
            model(),
            state,
            jnp.asarray(ids),
            keys,
            CONFIG,
            expand=TopTokens(CHILDREN),
            score=AnswerTokens(mean_loglikelihood, jnp.array([END])),
            prior=likelihood_prior,
        )
    )
    state, found = search(state, jax.random.split(jax.random.key(0), LANES))
    assert set(np.flatnonzero(state.cache.alive)) == set(ids)
    assert not any(vars(jax.device_get(violations(state.cache))).values())
    return state, jax.device_get(found)


def assert_families(found: SearchResult, problem: int, root: LLMatcher | None) -> int:
    """Every family is made of the likeliest tokens that may follow; how many families there are."""
    tree = found.tree
    tokens = tree.tokens[problem, :, 0]
    parents = tree.parent[problem]
    families = sorted(set(parents[parents >= 0].tolist()))
    for parent in families:
        path: list[int] = []
        node = parent
        while node:
            path.insert(0, int(tokens[node]))
            node = int(parents[node])
        last = [*prompt(PROMPTS[problem]), *path][-1]
        allowed = np.ones(len(TOKENS), bool)
        if root is not None:
            here = root.deep_copy()
            assert all(here.consume_token(token) for token in path)
            allowed = mask_of(here)
        ranked = np.argsort(np.where(allowed, -LOGPROBS[last], np.inf), kind="stable")
        expected = ranked[: min(CHILDREN, int(allowed.sum()))].tolist()
        rows = np.flatnonzero(parents == parent)
        assert tokens[rows].tolist() == expected + [-1] * (CHILDREN - len(expected))
        for row, token in zip(rows.tolist(), expected, strict=False):
            logprob = LOGPROBS[last, token]
            assert tree.raw_logprob[problem, row] == pytest.approx(logprob, abs=1e-5)
            assert tree.value[problem, row] == pytest.approx(logprob, abs=1e-5)
            ends = token == END or tree.depth[problem, row] == CONFIG.max_depth
            assert tree.terminal[problem, row] == ends
        assert np.all(np.isneginf(tree.value[problem, rows[len(expected) :]]))
    return len(families)


def test_children_are_the_likeliest_tokens() -> None:
    state, ids = opened()
    _, found = run(state, ids)
    for problem in range(LANES):
        assert assert_families(found, problem, None) >= 3
    assert not np.any(found.at_capacity)


def test_a_grammar_leaves_only_its_own_tokens() -> None:
    state, ids = opened()
    state = constrain(state, ids[:3], regex(PATTERN))  # the last problem stays free
    _, found = run(state, ids)
    for problem in range(LANES):
        root = regex_root(PATTERN) if problem < 3 else None
        assert assert_families(found, problem, root) >= 2
    for problem in range(3):
        answer = found.tokens[problem, 0][: found.length[problem, 0]].tolist()
        assert answer[-1] == END or len(answer) == CONFIG.max_depth


@pytest.mark.parametrize("fields", [{"num_children": 4}, {"num_children": 3, "inner_children": 2}])
def test_another_number_of_children_is_refused(fields: dict[str, Any]) -> None:
    state, ids = opened()
    config = MctsConfig(**fields)
    run = jax.jit(partial(mcts, config=config, expand=TopTokens(3)))
    with pytest.raises(ValueError, match="count is 3; it must be num_children"):
        run(model(), state, ids, jax.random.key(0))


def test_more_children_than_tokens_are_refused() -> None:
    state, ids = opened()
    expand = TopTokens(len(TOKENS) + 1)
    with pytest.raises(ValueError, match=f"count is {len(TOKENS) + 1}; it must be at most"):
        jax.jit(expand)(model(), state, ids, ids)
    with pytest.raises(ValueError, match="count is 0; it must be at least 1"):
        TopTokens(0)
