"""Capacities, and how many blocks a memory holds."""

from __future__ import annotations

import re
from typing import Any

import jax
import pytest

from cache.harness import MODEL_SHAPE, SMALL
from dendrite_jax import cache as kv
from dendrite_jax.cache import CacheConfig
from dendrite_jax.cache.sizing import free_bytes


class FakeDevice:
    """A device that keeps the given account of its memory."""

    def __init__(self, account: dict[str, int] | None) -> None:
        self.account = account

    def memory_stats(self) -> dict[str, int] | None:
        return self.account


@pytest.mark.parametrize("field", ["num_blocks", "num_slots", "max_context", "block_size"])
@pytest.mark.parametrize("value", [0, -3])
def test_a_capacity_below_one_is_refused(field: str, value: int) -> None:
    fields: dict[str, Any] = {**vars(SMALL), field: value}
    with pytest.raises(ValueError, match=f"{field} is {value}; it must be at least 1"):
        CacheConfig(**fields)


def test_a_context_is_held_in_whole_blocks() -> None:
    assert CacheConfig(num_blocks=1, num_slots=1, max_context=17).max_blocks == 2
    assert CacheConfig(num_blocks=1, num_slots=1, max_context=16).max_blocks == 1
    assert kv.init(SMALL, MODEL_SHAPE).max_context == 14


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
