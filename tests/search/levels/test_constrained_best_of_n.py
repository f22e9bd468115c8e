"""Best of n under grammars: every node is the replay of its own draws, with llguidance's masks."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from llguidance import LLMatcher

from dendrite_jax import grammar as gr
from dendrite_jax import search
from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import NO_NODE, BestOfNConfig, SampleThoughts, SearchResult
from dendrite_jax.serving import complete_search
from engine.constraint_programs import (
    ARITHMETIC,
    END,
    REGEXES,
    SAMPLING,
    compiler,
    constrain,
    lark_root,
    model,
    opened,
    oracle,
    prompt,
    regex_root,
    stacked,
)
from engine.programs import LANES, fork, pad, set_keys

pytestmark = pytest.mark.slow

PROMPTS = ["a", "{", "name", "12"]
CONFIG = BestOfNConfig(n=3, depth=2)
EXPAND = SampleThoughts(5, sampling=SAMPLING, any_end=True)
INDEX = np.array([0, 1, 2, gr.NO_GRAMMAR], np.int32)

best_of_n = jax.jit(search.best_of_n, static_argnames="config")


def problem_keys() -> jax.Array:
    return jax.random.split(jax.random.key(4), LANES)


def expected_nodes(root: LLMatcher | None, problem: int) -> list[list[int]]:
    """Tokens of the first thoughts and then of the second, [] for none after a complete text."""
    state, ids = opened(PROMPTS)
    state = set_keys(state, ids, problem_keys())
    state, first = fork(state, pad([ids[problem]]))
    state, samples = fork(state, pad([first[0]] * CONFIG.n))
    state, seconds = fork(state, samples)
    keys = np.asarray(state.key)
    held = prompt(PROMPTS[problem])
    levels: list[list[list[int]]] = [[], []]
    for sample in range(CONFIG.n):
        here = root.deep_copy() if root is not None else None
        tokens, _, _ = oracle(here, held[-1], keys[samples[sample]], len(held), EXPAND.max_tokens)
        more: list[int] = []
        if END not in tokens or here is None:
            for token in tokens:
                assert here is None or here.consume_token(token)
            position = len(held) + len(tokens)
            more, _, _ = oracle(
                here, tokens[-1], keys[seconds[sample]], position, EXPAND.max_tokens
            )
        levels[0].append(tokens)
        levels[1].append(more)
    return levels[0] + levels[1]


def assert_nodes(found: SearchResult, problem: int, root: LLMatcher | None) -> None:
    expected = expected_nodes(root, problem)
    nodes = [row[row != NO_TOKEN].tolist() for row in found.tree.tokens[problem, 1:]]
    assert nodes == expected
    for place, tokens in enumerate(expected):
        node = 1 + place
        if END in tokens and root is not None:
            assert found.tree.terminal[problem, node]
        if place >= CONFIG.n:
            parent = found.tree.parent[problem, node]
            assert parent == (node - CONFIG.n if tokens else NO_NODE)


def test_every_node_is_a_replay_of_llguidance() -> None:
    state, roots = opened(PROMPTS)
    state = constrain(state, roots, stacked(), INDEX)
    _, found = best_of_n(model(), state, roots, problem_keys(), config=CONFIG, expand=EXPAND)
    found = jax.device_get(found)
    for problem, pattern in enumerate(REGEXES):
        assert_nodes(found, problem, regex_root(pattern))
    assert_nodes(found, 3, None)


def test_a_grammar_without_a_table_gives_the_replay_too() -> None:
    lazy = gr.LazyGrammar(
        compiler(), [gr.Grammar.from_lark(ARITHMETIC)], max_nodes=512, max_masks=64
    )
    state, roots = opened(PROMPTS)
    state = constrain(state, roots, lazy.table, np.array([0, 0, -1, -1], np.int32))
    _, found = complete_search(
        lazy,
        state,
        lambda state: best_of_n(
            model(), state, roots, problem_keys(), config=CONFIG, expand=EXPAND
        ),
    )
    found = jax.device_get(found)
    for problem in (0, 1):
        assert_nodes(found, problem, lark_root(ARITHMETIC))


@pytest.mark.parametrize("problem", range(len(REGEXES)))
def test_the_answers_are_texts_or_beginnings_of_texts(problem: int) -> None:
    state, roots = opened(PROMPTS)
    state = constrain(state, roots, stacked(), INDEX)
    _, found = best_of_n(model(), state, roots, problem_keys(), config=CONFIG, expand=EXPAND)
    for row, length in zip(found.tokens[problem].tolist(), found.length[problem], strict=True):
        tokens = row[: int(length)]
        assert regex_root(REGEXES[problem]).validate_tokens(tokens) == len(tokens)
