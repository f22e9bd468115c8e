"""A resized cache holds the same branches, to the bit, and goes on with them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from cache.harness import SMALL, Harness
from cache.test_codec import SHAPE, two_codecs
from dendrite_jax import cache as kv
from dendrite_jax.cache import CapacityError
from dendrite_jax.cache.state import CONTEXT_FULL, OUT_OF_BLOCKS

TREE_BLOCKS, TREE_LENGTH, TREE_BRANCH = 4, 9, 3
"""Blocks in use, tokens of the longest branch and the highest branch id of `tree`."""


def tree() -> Harness:
    """A root of 6 tokens, two children of it of which one has gone on, and a freed branch."""
    harness = Harness(SMALL, SHAPE, two_codecs())
    root, freed = harness.open(2)
    harness.append({freed: 6})
    harness.append({root: 6})
    harness.fork([root, root])
    harness.append({TREE_BRANCH: 3})
    harness.free([freed])
    return harness


@pytest.mark.parametrize(
    "changes",
    [
        {"num_blocks": 30, "num_slots": 12, "max_context": 40},
        {"num_blocks": TREE_BLOCKS + 1, "num_slots": TREE_BRANCH + 1, "max_context": 12},
        {"num_blocks": 20, "max_context": 12, "debug": False},
    ],
)
def test_branches_are_the_same_and_go_on(changes: dict[str, Any]) -> None:
    harness = tree()
    harness.resize(replace(SMALL, **changes))
    assert harness.append({0: 1, 2: 1}) == [True, True]
    harness.resize(SMALL)
    assert harness.append({0: 1, 3: 5}) == [True, True]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_blocks": TREE_BLOCKS - 1}, "num_blocks is 3, and 4 are in use"),
        ({"num_slots": TREE_BRANCH}, "num_slots is 3, and branch 3 is held"),
        ({"max_context": 8}, "max_context is 8, and branch 3 holds 9 tokens"),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    harness = tree()
    with pytest.raises(CapacityError, match=re.escape(message)):
        kv.resize(harness.cache, replace(SMALL, **changes))
    harness.check()


def test_the_block_size_stays() -> None:
    with pytest.raises(ValueError, match="block_size is 8; a cache of blocks of 4 tokens"):
        kv.resize(Harness().cache, replace(SMALL, block_size=8))


def test_flags_of_what_has_grown_are_lifted() -> None:
    harness = Harness()
    branches = harness.open(4)
    harness.append({branches[0]: 6})
    harness.append({branches[0]: 6})
    harness.append(dict.fromkeys(branches, 6))
    harness.append(dict.fromkeys(branches[2:], 6))
    assert [harness.error(branch) for branch in branches] == [
        CONTEXT_FULL,
        0,
        OUT_OF_BLOCKS,
        OUT_OF_BLOCKS,
    ]
    harness.resize(replace(SMALL, num_blocks=12))
    assert [harness.error(branch) for branch in branches] == [CONTEXT_FULL, 0, 0, 0]
    harness.resize(replace(SMALL, num_blocks=12, max_context=24))
    assert harness.append(dict.fromkeys(branches, 1)) == [True] * 4
