"""Appending: refusals, exhaustion and copy-on-write, case by case.

The harness compares contents, sharing, counts and flags with the model after every call, so a
test states only what makes its case.
"""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from cache.harness import MODEL_SHAPE, SMALL, TOKENS, Harness
from dendrite_jax import cache as kv
from dendrite_jax.cache import CacheConfig
from dendrite_jax.cache.state import (
    CONTEXT_FULL,
    COUNT_TOO_LARGE,
    DUPLICATE_BRANCH,
    OUT_OF_BLOCKS,
    UNKNOWN_BRANCH,
)

SIZE = SMALL.block_size


def copies(harness: Harness) -> int:
    return harness.ledger()["blocks_copied"]


def test_a_branch_named_twice_takes_the_first_lane_only() -> None:
    harness = Harness()
    (branch,) = harness.open()
    assert harness.append([(branch, 2), (branch, 3)]) == [True, False]
    assert len(harness.tokens(branch)) == 2
    assert harness.misuse == DUPLICATE_BRANCH


def test_unusable_ids_leave_the_other_lanes_alone() -> None:
    harness = Harness()
    branch, freed = harness.open(2)
    harness.free([freed])
    lanes = [(freed, 2), (SMALL.num_slots, 2), (branch, 2), (-1, 2)]
    assert harness.append(lanes) == [False, False, True, False]
    assert harness.misuse == UNKNOWN_BRANCH


def test_ids_far_out_of_range_name_no_branch() -> None:
    harness = Harness()
    harness.open(1)
    assert harness.append([(2**31 - 1, 2), (-(2**31), 2)]) == [False, False]
    assert harness.misuse == UNKNOWN_BRANCH


def test_a_count_beyond_the_tokens_is_refused() -> None:
    harness = Harness()
    first, second = harness.open(2)
    assert harness.append([(first, TOKENS + 1), (second, 1)]) == [False, True]
    assert harness.misuse == COUNT_TOO_LARGE


def test_no_tokens_change_nothing() -> None:
    harness = Harness()
    (branch,) = harness.open()
    assert harness.append({branch: 0}) == [False]
    assert (harness.misuse, harness.error(branch)) == (0, 0)


def test_running_out_in_the_middle_of_a_call_flags_the_lanes_that_got_nothing() -> None:
    harness = Harness()
    branches = harness.open(4)
    assert all(harness.append(dict.fromkeys(branches, 6)))  # 8 of 9 blocks
    assert harness.append(dict.fromkeys(branches, 6)) == [True, False, False, False]
    assert [harness.error(branch) for branch in branches] == [0] + [OUT_OF_BLOCKS] * 3
    assert harness.blocks_short == 3
    assert harness.blocks_free() == 0
    harness.free(branches)
    assert harness.blocks_free() == SMALL.num_blocks


@pytest.mark.parametrize("counts", [(100, 1), (1, 100)])
def test_a_lane_that_cannot_fit_leaves_the_blocks_to_its_neighbours(
    counts: tuple[int, int],
) -> None:
    cache = kv.init(CacheConfig(num_blocks=3, num_slots=2, max_context=128), MODEL_SHAPE)
    cache, ids = kv.open_branches(cache, jnp.ones(2, bool))
    tokens = jnp.zeros((2, 100), jnp.int32)
    cache, appended = kv.append(cache, ids, tokens, jnp.array(counts))
    fits = [count == 1 for count in counts]
    assert appended.ok.tolist() == fits
    assert cache.error.tolist() == [0 if fit else OUT_OF_BLOCKS for fit in fits]
    assert cache.length.tolist() == [1 if fit else 0 for fit in fits]
    assert cache.blocks_short == 7 + 1 - 3


def test_lanes_behind_a_refused_one_are_served_in_order() -> None:
    harness = Harness()
    first, second, third, fourth = harness.open(4)
    harness.append({first: 6, second: 6, third: 4})
    harness.append({first: 6, second: 6})
    assert harness.blocks_free() == 2
    lanes = {third: 1, fourth: 6, first: 2, second: 2}
    assert harness.append(lanes) == [True, False, True, False]
    assert harness.blocks_free() == 0


def test_a_block_that_a_refused_lane_keeps_is_copied_by_the_lane_behind_it() -> None:
    harness = Harness()
    parent, *others = harness.open(4)
    harness.append({parent: 2, **dict.fromkeys(others, 6)})
    harness.append({others[0]: 3})
    (child,) = harness.fork([parent])
    assert harness.blocks_free() == 1
    # The child wants a copy and one block more; the parent, last in the call, now needs a copy.
    assert harness.append({child: 6, parent: 1}) == [False, True]
    assert copies(harness) == 1


def test_a_lane_that_needs_no_block_goes_on_when_there_is_none() -> None:
    harness = Harness()
    branches = harness.open(4)
    harness.append(dict(zip(branches, (5, 6, 6, 6), strict=True)))
    harness.append({branches[0]: 4})  # the ninth block
    counts = dict(zip(branches, (4, 2, 3, 2), strict=True))
    assert harness.append(counts) == [False, True, False, True]


def test_a_flagged_branch_takes_no_more_even_with_blocks_to_spare() -> None:
    harness = Harness()
    branches = harness.open(4)
    harness.append(dict.fromkeys(branches, 6))
    harness.append(dict.fromkeys(branches, 6))
    harness.free(branches[:3])
    assert harness.append({branches[3]: 1}) == [False]
    (child,) = harness.fork([branches[3]])
    assert harness.error(child) == OUT_OF_BLOCKS
    assert harness.append({child: 1}) == [False]


def test_a_full_context_flags_the_branch_and_keeps_what_it_holds() -> None:
    harness = Harness()
    full, other = harness.open(2)
    context = SMALL.max_context
    assert context == 14  # in the middle of a block
    for count in (6, 6, 2):
        assert harness.append({full: count}) == [True]
    assert harness.append({full: 1, other: 6}) == [False, True]
    assert harness.error(full) == CONTEXT_FULL
    assert len(harness.tokens(full)) == context


def test_a_call_that_would_pass_the_context_takes_nothing() -> None:
    harness = Harness()
    (branch,) = harness.open()
    harness.append({branch: 6})
    harness.append({branch: 6})
    free = harness.blocks_free()
    assert harness.append({branch: 5}) == [False]
    assert harness.error(branch) == CONTEXT_FULL
    assert harness.blocks_free() == free


def test_the_first_write_to_a_shared_block_copies_it() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: SIZE + 1})
    (child,) = harness.fork([parent])
    harness.append({child: 1})
    assert copies(harness) == 1
    assert harness.tokens(child)[:-1] == harness.tokens(parent)
    harness.append({parent: 1})  # alone again
    assert copies(harness) == 1
    assert harness.tokens(child)[-1] != harness.tokens(parent)[-1]


def test_a_full_shared_block_is_never_copied() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: SIZE})
    (child,) = harness.fork([parent])
    harness.append({parent: 3, child: 3})
    assert copies(harness) == 0


def test_the_last_of_all_holders_that_write_in_one_call_keeps_the_block() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: SIZE + 2})
    children = harness.fork([parent] * 3)
    used = SMALL.num_blocks - harness.blocks_free()
    harness.append(dict.fromkeys([*children, parent], 1))
    assert copies(harness) == 3
    assert SMALL.num_blocks - harness.blocks_free() == used + 3


def test_the_last_holder_left_writes_in_place() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: 3})
    children = harness.fork([parent] * 2)
    harness.free([parent, children[0]])
    harness.append({children[1]: 1})
    assert copies(harness) == 0


def test_a_holder_that_does_not_write_keeps_its_block() -> None:
    harness = Harness()
    (parent,) = harness.open()
    harness.append({parent: 3})
    children = harness.fork([parent] * 2)
    harness.append(dict.fromkeys(children, 1))
    assert copies(harness) == 2
    assert len(harness.tokens(parent)) == 3


def test_nobody_writes_in_place_when_another_holder_was_refused() -> None:
    harness = Harness()
    parent, *others = harness.open(4)
    harness.append({parent: 2, **dict.fromkeys(others, 6)})
    harness.append({others[0]: 6})
    (child,) = harness.fork([parent])
    harness.append({others[1]: 3})
    assert harness.blocks_free() == 0
    # The parent would need a copy to leave its block to the child; there is no block for it.
    assert harness.append({parent: 1, child: 1}) == [False, False]
    assert harness.tokens(parent) == harness.tokens(child)


def test_the_last_blocks_go_to_those_that_copy_and_the_keeper_needs_none() -> None:
    harness = Harness()
    parent, filler = harness.open(2)
    harness.append({parent: 2, filler: 6})
    harness.append({filler: 6})
    children = harness.fork([parent] * 2)
    spare = harness.open()[0]
    harness.append({spare: 6})
    harness.append({spare: 6})
    assert harness.blocks_free() == 2
    # Two copies fit and the parent, last in the call, keeps the block.
    assert harness.append({children[0]: 1, children[1]: 1, parent: 1}) == [True, True, True]
    assert harness.blocks_free() == 0


def test_the_peak_is_the_most_blocks_ever_held() -> None:
    harness = Harness()
    first, second = harness.open(2)
    harness.append({first: 6, second: 6})
    harness.free([first])
    harness.append({second: 1})
    assert harness.peak_blocks == 4
