"""Golden trees of every search: two problems that take different ways."""

from __future__ import annotations

import pytest

from search.every_search import EVERY_SEARCH
from search.tree_cases import load_golden, trees_of

TOLERANCE = 1e-4
"""Of sums of a few log-probabilities of size 10 at most, in float32."""
ALIKE = {"best_of_n", "step_beam", "rebase", "depth_first"}
"""What `sample`, `dvts` and `tree_of_thoughts`, among the quick tests, run too."""


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in ALIKE else []) for name in EVERY_SEARCH],
)
def test_golden_tree(name: str) -> None:
    for found, golden in zip(trees_of(name), load_golden()[name], strict=True):
        assert [node[:4] for node in found["nodes"]] == [node[:4] for node in golden["nodes"]]
        assert found["answers"] == golden["answers"]
        values = [node[4] for node in found["nodes"]]
        assert values == pytest.approx([node[4] for node in golden["nodes"]], abs=TOLERANCE)
        assert found["values"] == pytest.approx(golden["values"], abs=TOLERANCE)
