"""Counters of the work done and saved, exact to 64 bits without enabling x64."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array


class Ledger(struct.PyTreeNode):
    """What a state has cost so far; each counter is u32[2], low and high word."""

    prefilled: Array  # tokens run through the model by prefill
    generated: Array  # tokens run through the model by decode steps
    reused: Array  # tokens that children inherited from their parents instead of recomputing
    forks: Array  # children made
    blocks_copied: Array  # blocks copied on write

    @classmethod
    def zeros(cls) -> Ledger:
        return cls(*(jnp.zeros(2, jnp.uint32) for _ in cls.__dataclass_fields__))

    def add(self, **amounts: Array) -> Ledger:
        """Adds i32[] amounts (each ≥ 0) to the named counters."""
        return self.replace(
            **{name: _add64(getattr(self, name), amount) for name, amount in amounts.items()}
        )

    def totals(self) -> dict[str, int]:
        """The counters as Python integers; reads the device."""
        return {name: _as_int(getattr(self, name)) for name in self.__dataclass_fields__}


def _add64(counter: Array, amount: Array) -> Array:
    low = counter[0] + amount.astype(jnp.uint32)
    carry = (low < counter[0]).astype(jnp.uint32)
    return jnp.stack([low, counter[1] + carry])


def _as_int(counter: Array) -> int:
    return int(counter[0]) + (int(counter[1]) << 32)
