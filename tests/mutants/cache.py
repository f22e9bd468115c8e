"""Mutations of the paged cache."""

from __future__ import annotations

from mutants.mutant import Mutant

_APPEND = "dendrite_jax/cache/append.py"
_BRANCHES = "dendrite_jax/cache/branches.py"

MUTANTS = (
    Mutant(
        "copy-on-write copies nothing",
        _APPEND,
        "destination = jnp.where(need.copied, new[:, 0], blocks)",
        "destination = jnp.full_like(new[:, 0], blocks)",
        ("cache/test_append.py::test_the_first_write_to_a_shared_block_copies_it",),
    ),
    Mutant(
        "the last of all holders copies its block too",
        _APPEND,
        "keeps = (self.keeper == jnp.arange(lanes)) & ~held",
        "keeps = jnp.zeros_like(held)",
        (
            "cache/test_append.py::test_the_last_of_all_holders_that_write_in_one_call_keeps_the_block",
        ),
    ),
    Mutant(
        "a block is kept although a refused lane holds it",
        _APPEND,
        "(self.keeper == jnp.arange(lanes)) & ~held",
        "(self.keeper == jnp.arange(lanes))",
        ("cache/test_append.py::test_nobody_writes_in_place_when_another_holder_was_refused",),
    ),
    Mutant(
        "a full block is copied",
        _APPEND,
        "partial = wanted & (start % size != 0)",
        "partial = wanted & (start > 0)",
        ("cache/test_append.py::test_a_full_shared_block_is_never_copied",),
    ),
    Mutant(
        "the holder that copied a block goes on holding it",
        _APPEND,
        "need.tail, blocks)].add(-1,",
        "need.tail, blocks)].add(0,",
        ("cache/test_append.py::test_the_first_write_to_a_shared_block_copies_it",),
    ),
    Mutant(
        "lanes are given each other's blocks",
        _APPEND,
        "first=jnp.cumsum(taken) - taken,",
        "first=jnp.zeros_like(taken),",
        ("cache/test_append.py::test_lanes_behind_a_refused_one_are_served_in_order",),
    ),
    Mutant(
        "a refused lane keeps its blocks from those behind it",
        _APPEND,
        "left = num_free - jnp.max(jnp.where(end <= num_free, end, 0))",
        "left = num_free - end",
        ("cache/test_append.py::test_a_lane_that_cannot_fit_leaves_the_blocks_to_its_neighbours",),
    ),
    Mutant(
        "a branch may not fill its context",
        _APPEND,
        "(start + count > cache.max_context)",
        "(start + count >= cache.max_context)",
        ("cache/test_append.py::test_a_full_context_flags_the_branch_and_keeps_what_it_holds",),
    ),
    Mutant(
        "a flagged branch takes tokens",
        _APPEND,
        "lanes.valid & (cache.error[slot] == 0) &",
        "lanes.valid &",
        ("cache/test_append.py::test_a_flagged_branch_takes_no_more_even_with_blocks_to_spare",),
    ),
    Mutant(
        "a fork counts no holder",
        _BRANCHES,
        "jnp.where(made[:, None], rows, NO_BLOCK), 1)",
        "jnp.where(made[:, None], rows, NO_BLOCK), 0)",
        ("cache/test_branches.py::test_a_fork_moves_no_keys_and_takes_no_block",),
    ),
    Mutant(
        "a child of a part takes all",
        _BRANCHES,
        "kept = length",
        "kept = cache.length[parent]",
        (
            "cache/test_branches.py::test_a_child_of_part_of_its_parent_shares_the_block_that_it_ends_in",
        ),
    ),
    Mutant(
        "a cut at the end of a block keeps the next one",
        _BRANCHES,
        "* cache.block_size < length[:, None]",
        "* cache.block_size <= length[:, None]",
        ("cache/test_branches.py::test_truncating_gives_back_the_blocks_beyond_the_cut",),
    ),
    Mutant(
        "a freed branch gives no block back",
        _BRANCHES,
        "jnp.where(lanes.valid[:, None], cache.table[lanes.slot], NO_BLOCK)",
        "jnp.full_like(cache.table[lanes.slot], NO_BLOCK)",
        ("cache/test_branches.py::test_a_double_free_gives_nothing_back_twice",),
    ),
    Mutant(
        "a branch that is named twice is freed twice",
        "dendrite_jax/cache/lanes.py",
        "Lanes(slot, live & ~repeated, misuse)",
        "Lanes(slot, live, misuse)",
        ("cache/test_branches.py::test_a_branch_freed_twice_in_one_call_is_freed_once",),
    ),
    Mutant(
        "a resized table names the old blocks",
        "dendrite_jax/cache/resize.py",
        "place[jnp.maximum(cache.table, 0)])",
        "cache.table)",
        ("cache/test_resize.py::test_branches_are_the_same_and_go_on",),
    ),
    Mutant(
        "a counter does not carry",
        "dendrite_jax/cache/ledger.py",
        "jnp.stack([low, counter[1] + carry])",
        "jnp.stack([low, counter[1] + 0 * carry])",
        ("cache/test_ledger.py::test_the_carry_is_exact_at_the_edge",),
    ),
    Mutant(
        "guard blocks are handed out",
        "dendrite_jax/cache/state.py",
        "ref_count=jnp.where(guard, GUARD_COUNT, pool.ref_count)",
        "ref_count=pool.ref_count",
        ("cache/test_debug.py::test_guards_are_never_handed_out",),
    ),
    Mutant(
        "a damaged guard is not found",
        "dendrite_jax/cache/debug.py",
        "intact &= group.holds(GUARD_VALUE)",
        "intact |= group.holds(GUARD_VALUE)",
        ("cache/test_debug.py::test_damage_is_found_and_named",),
    ),
)
