"""The errors that the flags of a cache turn into."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from cache.harness import LANES, TOKENS, Harness
from dendrite_jax import cache as kv
from dendrite_jax.cache import BranchError, CapacityError


def out_of_blocks(harness: Harness) -> None:
    """Asks for 12 tokens in each of four branches, 12 blocks of 4."""
    branches = harness.open(LANES)
    harness.append(dict.fromkeys(branches, 6))
    harness.append(dict.fromkeys(branches, 6))


def out_of_context(harness: Harness) -> None:
    (branch,) = harness.open()
    for count in (6, 6, 5):
        harness.append({branch: count})


def out_of_slots(harness: Harness) -> None:
    harness.open(LANES)
    harness.open(LANES)


def used_slot(harness: Harness) -> None:
    (branch,) = harness.open()
    harness.fork([branch], [branch])


def duplicate(harness: Harness) -> None:
    (branch,) = harness.open()
    harness.append([(branch, 1), (branch, 1)])


def unknown(harness: Harness) -> None:
    harness.free([3])


def overrun(harness: Harness) -> None:
    harness.append({harness.open()[0]: TOKENS + 1})


@pytest.mark.parametrize(
    ("cause", "error", "message"),
    [
        (
            out_of_blocks,
            CapacityError,
            "branches [1, 2, 3] stopped: num_blocks is 9 and at least 12 are needed",
        ),
        (
            out_of_context,
            CapacityError,
            "branches [0] stopped at [12] tokens: max_context is 14 and must hold",
        ),
        (out_of_slots, CapacityError, "num_slots is 6, 6 are held"),
        (used_slot, BranchError, "child slot that is in use"),
        (duplicate, BranchError, "same branch twice"),
        (unknown, BranchError, "not held"),
        (overrun, BranchError, "more tokens than it was given"),
    ],
)
def test_a_flag_becomes_an_error_that_names_the_knob(
    cause: Callable[[Harness], None], error: type[Exception], message: str
) -> None:
    harness = Harness()
    kv.raise_errors(harness.cache)
    cause(harness)
    with pytest.raises(error, match=re.escape(message)):
        kv.raise_errors(harness.cache)


def test_the_flags_of_other_branches_are_passed_over() -> None:
    harness = Harness()
    out_of_blocks(harness)
    assert kv.find_error(harness.cache, [0]) is None
    assert "branches [2]" in str(kv.find_error(harness.cache, [0, 2]))
