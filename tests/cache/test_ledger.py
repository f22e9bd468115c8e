"""Counters that stay exact past 32 bits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from dendrite_jax.cache import Ledger

LARGEST = 2**31 - 1


def test_a_counter_carries_into_its_high_word() -> None:
    @jax.jit
    def add_many(ledger: Ledger, amount: jax.Array) -> Ledger:
        return jax.lax.fori_loop(0, 9, lambda _, ledger: ledger.add(forks=amount), ledger)

    total = 0
    ledger = Ledger.zeros()
    for amount in (LARGEST, 7, LARGEST, 0, LARGEST - 12345):
        ledger = add_many(ledger, jnp.int32(amount))
        total += 9 * amount
        assert ledger.totals()["forks"] == total
    assert total > 2**35


@pytest.mark.parametrize("low", [2**32 - 1, 2**32 - 5, 2**31])
def test_the_carry_is_exact_at_the_edge(low: int) -> None:
    ledger = Ledger.zeros().replace(reused=jnp.array([low, 3], jnp.uint32))
    for amount in (0, 1, 4, 5, LARGEST):
        assert ledger.add(reused=jnp.int32(amount)).totals()["reused"] == 3 * 2**32 + low + amount


def test_only_the_named_counters_move() -> None:
    ledger = Ledger.zeros().add(prefilled=jnp.int32(3), blocks_copied=jnp.int32(1))
    assert ledger.totals() == {
        "prefilled": 3,
        "generated": 0,
        "scored": 0,
        "reused": 0,
        "forks": 0,
        "blocks_copied": 1,
        "steps": 0,
    }


@pytest.mark.parametrize("low", [2**32 - 1, 3])
def test_a_difference_borrows_from_the_high_word(low: int) -> None:
    earlier = Ledger.zeros().replace(scored=jnp.array([low, 2], jnp.uint32))
    later = earlier.add(scored=jnp.int32(LARGEST), steps=1)
    spent = later.since(earlier).totals()
    assert (spent["scored"], spent["steps"], spent["forks"]) == (LARGEST, 1, 0)
