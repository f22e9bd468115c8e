"""Comparing what a search by levels found with the oracle."""

from __future__ import annotations

import numpy as np
import pytest

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import NO_NODE, SearchResult, path_tokens
from engine.programs import pad
from search.levels.levels_oracle import Found

TOLERANCE = 1e-4
"""Of sums of a few log-probabilities of size 10 at most, in float32."""


def assert_found(found: SearchResult, problem: int, expected: Found) -> None:
    """Checks one problem of a result against all that the oracle found."""
    tree = found.tree
    used = {node.number for node in expected.nodes}
    for number in set(range(tree.parent.shape[1])) - used:
        assert tree.parent[problem, number] == NO_NODE
        assert np.isneginf(tree.value[problem, number])
        assert np.all(tree.tokens[problem, number] == NO_TOKEN)
    for node in expected.nodes:
        place = (problem, node.number)
        tokens = pad(node.tokens, NO_TOKEN, tree.tokens.shape[2])
        assert tree.tokens[place].tolist() == tokens.tolist()
        assert tree.parent[place] == node.parent
        assert tree.depth[place] == node.depth
        assert tree.value[place] == node.verdict.value
        assert tree.raw_logprob[place] == pytest.approx(node.raw_logprob, abs=TOLERANCE)
        assert tree.terminal[place] == node.verdict.answer
        assert tree.logprob[place] == pytest.approx(node.logprob, abs=TOLERANCE)
    count = found.answers.shape[1]
    answers = [answer.number for answer in expected.answers]
    assert found.answers[problem].tolist() == pad(answers, NO_NODE, count).tolist()
    values = [answer.chosen_by for answer in expected.answers]
    missing = [-np.inf] * (count - len(values))
    assert found.values[problem].tolist() == pytest.approx(values + missing, rel=TOLERANCE)
    for rank, answer in enumerate(answers):
        path = [token for thought in path_tokens(tree, problem, answer) for token in thought]
        assert found.length[problem, rank] == len(path)
        assert (
            found.tokens[problem, rank].tolist()
            == pad(path, NO_TOKEN, found.tokens.shape[2]).tolist()
        )
    assert not found.at_capacity[problem]
