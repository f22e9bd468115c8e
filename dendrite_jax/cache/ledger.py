"""Counters of the work done and saved, exact to 64 bits without enabling x64."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache.array_struct import ArrayStruct


class Ledger(ArrayStruct):
    """What a state has cost so far; each counter is u32[2], low and high word."""

    prefilled: Array  # tokens run through the model by prefill
    generated: Array  # tokens run through the model by decode steps
    scored: Array  # tokens run through the model for the logits after each of them
    reused: Array  # tokens that children inherited from their parents instead of recomputing
    forks: Array  # children made
    blocks_copied: Array  # blocks copied on write
    steps: Array  # forward passes with a lane to run, whatever the number of lanes and tokens

    @classmethod
    def zeros(cls) -> Ledger:
        return cls(*(jnp.zeros(2, jnp.uint32) for _ in cls.__dataclass_fields__))

    def add(self, **amounts: Array | int) -> Ledger:
        """Adds i32[] amounts (each ≥ 0) to the named counters."""
        return self.replace(
            **{
                name: _add64(getattr(self, name), jnp.asarray(amount, jnp.uint32))
                for name, amount in amounts.items()
            }
        )

    def since(self, earlier: Ledger) -> Ledger:
        """What was counted after `earlier`, an older ledger of the same state."""
        return jax.tree.map(_subtract64, self, earlier)

    def totals(self) -> dict[str, int]:
        """The counters as Python integers; reads the device."""
        return {name: _as_int(getattr(self, name)) for name in self.__dataclass_fields__}


def _add64(counter: Array, amount: Array) -> Array:
    low = counter[0] + amount
    carry = (low < counter[0]).astype(jnp.uint32)
    return jnp.stack([low, counter[1] + carry])


def _subtract64(counter: Array, earlier: Array) -> Array:
    borrow = (counter[0] < earlier[0]).astype(jnp.uint32)
    return jnp.stack([counter[0] - earlier[0], counter[1] - earlier[1] - borrow])


def _as_int(counter: Array) -> int:
    return int(counter[0]) + (int(counter[1]) << 32)
