"""Sizing, validation, and the errors that the flags of a cache turn into."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from cache.harness import LANES, MODEL_SHAPE, SMALL, TOKENS, Harness
from dendrite_jax import cache as kv
from dendrite_jax.cache import BranchError, CacheConfig, CapacityError
from dendrite_jax.cache.capacity import free_bytes


class FakeDevice:
    """A device that keeps the given account of its memory."""

    def __init__(self, account: dict[str, int] | None) -> None:
        self.account = account

    def memory_stats(self) -> dict[str, int] | None:
        return self.account


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
            "branches [0] stopped at [12] tokens: max_context is 16 and must hold",
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


@pytest.mark.parametrize("field", ["num_blocks", "num_slots", "max_context", "block_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_capacity_below_one_is_refused(field: str, value: int) -> None:
    fields: dict[str, Any] = {**vars(SMALL), field: value}
    with pytest.raises(ValueError, match=f"{field} is {value}; it must be at least 1"):
        CacheConfig(**fields)


def test_a_context_is_rounded_up_to_whole_blocks() -> None:
    assert CacheConfig(num_blocks=1, num_slots=1, max_context=17).max_blocks == 2
    assert CacheConfig(num_blocks=1, num_slots=1, max_context=16).max_blocks == 1
    assert kv.init(SMALL, **MODEL_SHAPE).max_context == 16


def test_a_config_is_a_static_argument() -> None:
    assert hash(SMALL) == hash(CacheConfig(**vars(SMALL)))


def test_a_fraction_of_free_memory_in_blocks() -> None:
    device: Any = FakeDevice({"bytes_limit": 10_000, "bytes_in_use": 2_000})
    assert free_bytes(device) == 8_000
    assert kv.blocks_for_fraction(0.5, 1_000, device) == 4
    assert kv.blocks_for_fraction(1.0, 1_001, device) == 7


@pytest.mark.parametrize("account", [None, {}])
def test_a_device_without_an_account_has_the_memory_of_the_machine(
    account: dict[str, int] | None,
) -> None:
    device: Any = FakeDevice(account)
    assert 2**20 < free_bytes(device) < 2**50
    assert free_bytes(jax.devices("cpu")[0]) > 2**20


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    device: Any = FakeDevice({"bytes_limit": 10_000, "bytes_in_use": 0})
    with pytest.raises(ValueError, match=re.escape(f"memory_fraction is {fraction}")):
        kv.blocks_for_fraction(fraction, 1_000, device)


def test_less_than_one_block_is_refused_with_both_sizes() -> None:
    device: Any = FakeDevice({"bytes_limit": 10_000, "bytes_in_use": 9_000})
    with pytest.raises(ValueError, match=r"0\.5 of 1000 free bytes .* one block of 501 bytes"):
        kv.blocks_for_fraction(0.5, 501, device)


def test_keys_are_kept_in_the_asked_dtype() -> None:
    pool = kv.init(SMALL, dtype=jnp.bfloat16, **MODEL_SHAPE).pool
    assert (pool.k.dtype, pool.v.dtype) == (jnp.bfloat16, jnp.bfloat16)
    assert pool.k.shape == (2, 2 * 9 + 1, 1, 4, 2)
