"""Monte Carlo tree search under grammars against a replay with llguidance's masks."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
import pytest
from llguidance import LLMatcher

from dendrite_jax import grammar as gr
from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import NO_NODE, SampleThoughts
from dendrite_jax.search.monte_carlo import MctsConfig, Uct
from engine.constraint_programs import (
    END,
    REGEXES,
    SAMPLING,
    constrain,
    model,
    opened,
    oracle,
    prompt,
    regex_root,
    stacked,
)
from engine.programs import LANES, pad
from engine.sampling_oracle import log_softmax
from search.levels.thought_oracle import child_key
from search.monte_carlo.oracle import Child, Node, Search
from search.monte_carlo.programs import mcts

PROMPTS = ["a", "{", "name", "12"]
INDEX = np.array([0, 1, 2, gr.NO_GRAMMAR], np.int32)
CONFIG = MctsConfig(
    num_simulations=14, num_children=3, num_expansions=6, max_depth=3, num_answers=2, rule=Uct(0.5)
)
EXPAND = SampleThoughts(4, sampling=SAMPLING, any_end=True)
SEED = 0
"""Of keys with which no two scores of the replay are too close to call."""


def worth(value: jax.Array) -> jax.Array:
    """Mean log-probabilities about −5, the usual ones here, spread over (0, 1)."""
    return jax.nn.sigmoid(value + 5)


@dataclass
class Thought:
    """What the replay knows of a node beside its statistics."""

    path: list[int]  # with the prompt
    tokens: list[int]
    key: np.ndarray
    depth: int
    matcher: LLMatcher | None  # after the path
    ends: bool = False


def replay(root: LLMatcher | None, held: list[int], key: np.ndarray) -> Search:
    """The search of one problem; every branch asks llguidance before each token."""
    logprobs = log_softmax(np.asarray(model().table))

    def think(parent: Thought, number: int) -> Thought:
        key = child_key(parent.key, number)
        matcher = parent.matcher.deep_copy() if parent.matcher is not None else None
        tokens, _, _ = oracle(
            matcher, parent.path[-1], key, len(parent.path), limit=EXPAND.max_tokens
        )
        ended = matcher is not None and tokens[-1] == END
        for token in tokens[: len(tokens) - ended]:
            assert matcher is None or matcher.consume_token(token)
        depth = parent.depth + 1
        ends = ended or depth == CONFIG.max_depth
        return Thought([*parent.path, *tokens], tokens, key, depth, matcher, ends)

    def expand(node: Node) -> tuple[list[Child], bool]:
        parent: Thought = node.payload
        children: list[Child] = []
        seen: set[tuple[int, ...]] = set()
        for number in range(CONFIG.num_children):
            thought = think(parent, number)
            before = [parent.path[-1], *thought.tokens[:-1]]
            value = float(worth(logprobs[before, thought.tokens].mean()))
            repeated = tuple(thought.tokens) in seen
            seen.add(tuple(thought.tokens))
            kept = (-np.inf, 0.0) if repeated else (0.0, value)
            children.append(Child(*kept, thought.ends, thought))
        return children, False

    return Search.of(CONFIG, expand, Thought(held, [], key, 0, root))


@pytest.mark.slow
def test_the_tree_is_that_of_a_replay() -> None:
    state, roots = opened(PROMPTS)
    state = constrain(state, roots, stacked(), INDEX)
    keys = jax.random.split(jax.random.key(SEED), LANES)
    _, found = mcts(model(), state, roots, keys, config=CONFIG, expand=EXPAND, worth=worth)
    found = jax.device_get(found)
    grammars = [*(regex_root(pattern) for pattern in REGEXES), None]
    complete = 0
    for problem, root in enumerate(grammars):
        expected = replay(
            root, prompt(PROMPTS[problem]), np.asarray(jax.random.key_data(keys))[problem]
        )
        expected.run()
        nodes = expected.nodes()
        assert np.all(found.tree.parent[problem, len(nodes) :] == NO_NODE)
        for node in nodes[1:]:
            row, thought = (problem, node.number), node.payload
            assert node.parent is not None
            assert found.tree.parent[row] == node.parent.number
            tokens = pad(thought.tokens, NO_TOKEN, EXPAND.max_tokens)
            assert found.tree.tokens[row].tolist() == tokens.tolist()
            assert found.tree.visits[row] == node.visits
            assert found.tree.terminal[row] == thought.ends
            complete += END in thought.tokens
            # A complete text has no children.
            assert not (END in thought.tokens and root is not None and node.made)
        assert found.tree.visits[problem, 0] == expected.root.visits
    assert complete > 0


@pytest.mark.slow
@pytest.mark.parametrize("problem", range(len(REGEXES)))
def test_the_answers_are_texts_or_beginnings_of_texts(problem: int) -> None:
    state, roots = opened(PROMPTS)
    state = constrain(state, roots, stacked(), INDEX)
    keys = jax.random.split(jax.random.key(SEED), LANES)
    _, found = mcts(model(), state, roots, keys, config=CONFIG, expand=EXPAND, worth=worth)
    for row, length in zip(found.tokens[problem].tolist(), found.length[problem], strict=True):
        tokens = row[: int(length)]
        assert regex_root(REGEXES[problem]).validate_tokens(tokens) == len(tokens)
