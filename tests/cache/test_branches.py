"""Opening, forking and freeing, case by case; the harness checks the whole cache at every call."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cache.harness import LANES, SMALL, Harness
from dendrite_jax.cache import CacheConfig
from dendrite_jax.cache.state import (
    BAD_LENGTH,
    DUPLICATE_BRANCH,
    OUT_OF_SLOTS,
    SLOT_IN_USE,
    UNKNOWN_BRANCH,
)

DEPTH = 100


def test_a_fork_moves_no_keys_and_takes_no_block() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: 6})
    free = harness.blocks_free()
    children = harness.fork([parent] * LANES)
    assert harness.blocks_free() == free
    assert all(harness.tokens(child) == harness.tokens(parent) for child in children)
    assert harness.ledger() == {
        "prefilled": 0,
        "generated": 0,
        "scored": 0,
        "reused": 6 * LANES,
        "forks": LANES,
        "blocks_copied": 0,
        "steps": 0,
    }


def test_a_fork_into_a_used_slot_is_refused() -> None:
    harness = Harness()
    parent, used = harness.open(2)
    harness.append({parent: 3, used: 5})
    held = harness.tokens(used)
    assert harness.fork([parent], [used]) == [-1]
    assert harness.fork([parent], [parent]) == [-1]
    assert harness.misuse == SLOT_IN_USE
    assert harness.tokens(used) == held


def test_a_fork_into_a_slot_that_does_not_exist_is_refused() -> None:
    harness = Harness()
    (parent,) = harness.open()
    assert harness.fork([parent] * 2, [SMALL.num_slots, -1]) == [-1, -1]
    assert harness.misuse == SLOT_IN_USE


def test_a_slot_given_to_two_children_goes_to_the_first() -> None:
    harness = Harness()
    first, second = harness.open(2)
    harness.append({first: 3, second: 5})
    assert harness.fork([first, second], [4, 4]) == [4, -1]
    assert harness.misuse == SLOT_IN_USE
    assert harness.tokens(4) == harness.tokens(first)


def test_an_idle_lane_needs_no_slot() -> None:
    harness = Harness()
    (parent,) = harness.open()
    assert harness.fork([-1, parent], [parent, 3]) == [-1, 3]
    assert harness.misuse == 0


def test_a_fork_of_a_free_slot_is_refused() -> None:
    harness = Harness()
    live, freed = harness.open(2)
    harness.append({live: 3, freed: 3})
    harness.free([freed])
    assert harness.fork([freed, SMALL.num_slots, live])[:2] == [-1, -1]
    assert harness.misuse == UNKNOWN_BRANCH


def test_children_beyond_the_slots_are_refused() -> None:
    harness = Harness()
    branches = harness.open(LANES)
    assert harness.fork([branches[0]] * 3)[2] == -1
    assert harness.misuse == OUT_OF_SLOTS
    harness.free([branches[1]])
    assert harness.fork([branches[0]]) == [branches[1]]


def test_opening_beyond_the_slots_is_refused() -> None:
    harness = Harness()
    harness.open(LANES)
    assert harness.open(LANES)[-2:] == [-1, -1]
    assert harness.misuse == OUT_OF_SLOTS


def test_a_double_free_gives_nothing_back_twice() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: 6})
    (child,) = harness.fork([parent])
    harness.free([child])
    harness.free([child])
    assert harness.misuse == UNKNOWN_BRANCH
    assert len(harness.tokens(parent)) == 6


def test_a_branch_freed_twice_in_one_call_is_freed_once() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: 6})
    (child,) = harness.fork([parent])
    harness.free([child, child])
    assert harness.misuse == DUPLICATE_BRANCH
    assert len(harness.tokens(parent)) == 6


def test_a_reused_slot_starts_clean() -> None:
    harness = Harness()
    (branch,) = harness.open()
    for count in (6, 6, 6):
        harness.append({branch: count})
    assert harness.error(branch) != 0
    harness.free([branch])
    assert harness.open() == [branch]
    assert (harness.tokens(branch), harness.error(branch)) == ([], 0)


@pytest.mark.slow
def test_a_chain_of_a_hundred_forks_can_be_freed_in_any_order() -> None:
    config = CacheConfig(
        num_blocks=2 * DEPTH, num_slots=DEPTH + 1, max_context=DEPTH + 1, block_size=4, debug=True
    )
    harness = Harness(config)
    chain = harness.open()
    for _ in range(DEPTH):
        harness.append({chain[-1]: 1})
        chain += harness.fork([chain[-1]])
    assert harness.tokens(chain[-1]) == harness.tokens(chain[-2])
    assert all(
        harness.tokens(child)[: depth + 1] == harness.tokens(parent)
        for depth, (parent, child) in enumerate(pairwise(chain))
    )
    middle_out = sorted(chain, key=lambda branch: abs(branch - DEPTH // 2))
    for first in range(0, len(chain), LANES):
        harness.free(middle_out[first : first + LANES])
    assert harness.blocks_free() == config.num_blocks


def test_a_child_of_part_of_its_parent_shares_the_block_that_it_ends_in() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: 6})
    harness.append({parent: 5})  # 4 + 4 + 3 tokens
    free = harness.blocks_free()
    children = harness.fork([parent] * 4, None, [0, 3, 4, 6])
    assert harness.blocks_free() == free
    held = harness.tokens(parent)
    assert [harness.tokens(child) for child in children] == [held[:n] for n in (0, 3, 4, 6)]
    assert harness.ledger()["reused"] == 0 + 3 + 4 + 6
    # Two of them end inside a block that the parent has tokens in behind theirs.
    harness.append(dict.fromkeys(children, 1))
    assert harness.ledger()["blocks_copied"] == 2
    assert harness.tokens(parent) == held


def test_a_parent_cut_into_a_shared_block_copies_it_before_it_writes() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: 6})
    (child,) = harness.fork([parent])
    held = harness.tokens(child)
    assert harness.truncate({parent: 1}) == [True]
    harness.append({parent: 2})
    assert harness.tokens(child) == held
    assert harness.ledger()["blocks_copied"] == 1


def test_holders_at_different_offsets_of_a_block_write_in_one_call() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: 4})
    children = harness.fork([parent] * 3, None, [1, 2, 3])
    harness.truncate({parent: 2})
    harness.append(dict(zip([*children, parent], (2, 5, 1, 3), strict=True)))
    assert harness.ledger()["blocks_copied"] == 3


def test_truncating_gives_back_the_blocks_beyond_the_cut() -> None:
    harness = Harness()
    first, second = harness.open(2)
    harness.append({first: 6, second: 6})
    harness.append({first: 6, second: 6})
    (child,) = harness.fork([first])
    free = harness.blocks_free()
    harness.truncate({first: 5, second: 4, child: 12})
    assert harness.blocks_free() == free + 2  # of the second; the child holds the first's
    harness.truncate({child: 0})
    assert harness.blocks_free() == free + 2 + 1
    assert harness.truncate({child: 0}) == [True]


def test_a_branch_cannot_be_cut_to_more_than_it_holds() -> None:
    harness = Harness()
    first, second = harness.open(2)
    harness.append({first: 3, second: 3})
    assert harness.truncate({first: 4, second: 2}) == [False, True]
    assert harness.fork([first, first, second], None, [4, -1, 2])[:2] == [-1, -1]
    assert harness.misuse == BAD_LENGTH
    assert len(harness.tokens(first)) == 3


def test_a_flagged_branch_goes_on_when_it_is_cut() -> None:
    harness = Harness()
    (branch,) = harness.open()
    for count in (6, 6, 6):
        harness.append({branch: count})
    harness.truncate({branch: 12})
    assert harness.append({branch: 1}) == [False]
    whole, part = harness.fork([branch] * 2, None, [12, 11])
    harness.truncate({branch: 4})
    assert harness.append({branch: 1, whole: 1, part: 1}) == [True, False, True]
