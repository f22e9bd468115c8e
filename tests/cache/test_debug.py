"""Debug mode notices each kind of damage and names it."""

from __future__ import annotations

from collections.abc import Callable

import jax.numpy as jnp
import pytest
from jax import Array

from cache.harness import LANES, SMALL, Harness, inspect
from dendrite_jax.cache import Cache
from dendrite_jax.cache.debug import CacheCorrupted, check

GUARD = 2
"""A physical block between two usable ones."""
ROOT, CHILD, FREED = 0, 1, 2
"""Slots of the tree that the tests damage."""


@pytest.fixture(scope="module")
def tree() -> Cache:
    """A root of 6 tokens, and a child that has copied the block it wrote to."""
    harness = Harness()
    assert harness.open() == [ROOT]
    harness.append({ROOT: 6})
    assert harness.fork([ROOT, ROOT]) == [CHILD, FREED]
    harness.append({CHILD: 1})
    harness.free([FREED])
    return harness.cache


def with_array(name: str, change: Callable[[Array], Array]) -> Callable[[Cache], Cache]:
    """A damage to an array of the only group of layers."""

    def damage(cache: Cache) -> Cache:
        (group,) = cache.pool.groups
        arrays = {**group.arrays, name: change(group.arrays[name])}
        return cache.replace(pool=cache.pool.replace(groups=(group.replace(arrays=arrays),)))

    return damage


def with_pool(**fields: Callable[[Cache], object]) -> Callable[[Cache], Cache]:
    """A damage to the named pool fields."""
    return lambda cache: cache.replace(
        pool=cache.pool.replace(**{name: change(cache) for name, change in fields.items()})
    )


DAMAGES: dict[str, tuple[Callable[[Cache], Cache], set[str]]] = {
    "a key written into a guard": (
        with_array("k", lambda k: k.at[1, GUARD, 0, 3, 1].add(0.5)),
        {"guard_damaged"},
    ),
    "a value written into a guard": (
        with_array("v", lambda v: v.at[0, GUARD, 0, 0, 0].set(0)),
        {"guard_damaged"},
    ),
    "a NaN in a guard": (
        with_array("v", lambda v: v.at[0, -1, 0, 0, 0].set(jnp.nan)),
        {"guard_damaged"},
    ),
    "a token written into a guard": (
        with_pool(tokens=lambda c: c.pool.tokens.at[0, 2].set(5)),
        {"guard_damaged"},
    ),
    "a count too high": (
        with_pool(ref_count=lambda c: c.pool.ref_count.at[c.table[ROOT, 0]].add(1)),
        {"count_differs"},
    ),
    "a held block marked free": (
        with_pool(ref_count=lambda c: c.pool.ref_count.at[c.table[ROOT, 1]].set(0)),
        {"count_differs"},
    ),
    "a guard given to a branch": (
        lambda c: c.replace(table=c.table.at[ROOT, 1].set(GUARD)),
        {"count_differs"},
    ),
    "a block that does not exist": (
        lambda c: c.replace(table=c.table.at[ROOT, 1].set(c.num_blocks)),
        {"count_differs", "table_out_of_range"},
    ),
    "a length beyond the blocks": (
        lambda c: c.replace(length=c.length.at[ROOT].set(9)),
        {"uncovered_length"},
    ),
    "a length over capacity": (
        lambda c: c.replace(
            table=c.table.at[ROOT].set(c.table[ROOT, 0]),
            length=c.length.at[ROOT].set(c.max_context + 1),
        ),
        {"uncovered_length", "count_differs"},
    ),
    "a block beyond the length": (
        lambda c: c.replace(length=c.length.at[ROOT].set(4)),
        {"excess_block"},
    ),
    "a dead slot that holds a block": (
        lambda c: c.replace(table=c.table.at[FREED, 0].set(c.table[ROOT, 0])),
        {"excess_block"},
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_and_named(tree: Cache, name: str) -> None:
    damage, expected = DAMAGES[name]
    found, _ = inspect(damage(tree))
    assert {field for field, value in vars(found).items() if value} == expected


def test_a_sound_cache_passes(tree: Cache) -> None:
    check(tree)


def test_the_exception_lists_every_broken_invariant(tree: Cache) -> None:
    damaged = with_array("k", lambda k: k.at[:, GUARD].set(0))(tree)
    damaged = damaged.replace(length=tree.length.at[ROOT].set(9))
    with pytest.raises(CacheCorrupted, match=r"broken: uncovered_length, guard_damaged$"):
        check(damaged)


def test_guards_are_never_handed_out() -> None:
    harness = Harness()
    branches = harness.open(LANES)
    for count in (6, 6, 2):
        harness.append(dict.fromkeys(branches, count))
    assert harness.blocks_free() == 0
    table = harness.cache.table
    assert int(jnp.sum(table >= 0)) == SMALL.num_blocks
    assert bool(jnp.all((table < 0) | (table % 2 == 1)))
