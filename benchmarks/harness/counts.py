"""Holding what was timed to what the ledger counted: a loop that did less is no measurement."""

from __future__ import annotations

from collections.abc import Mapping

from dendrite_jax.cache import Cache


class CountError(RuntimeError):
    """What was timed did not do the work that its figure is of."""


def check_counts(before: Mapping[str, int], cache: Cache, **expected: int) -> None:
    """Raises CountError unless the ledger has grown by exactly what is expected; reads the device.

    Args:
      before: `cache.ledger.totals()` when the timing began.
      cache: the cache after it.
      expected: counters of the ledger by name, such as steps and generated.
    """
    after = cache.ledger.totals()
    for name, amount in expected.items():
        counted = after[name] - before[name]
        if counted != amount:
            raise CountError(f"{name} is {counted} by the ledger; what was timed says {amount}")
