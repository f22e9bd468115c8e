"""Loops that stay in place under `vmap`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_batching import custom_vmap

Carry = TypeVar("Carry")


def while_any(
    unfinished: Callable[[Carry], Array], body: Callable[[Carry], Carry], carry: Carry
) -> Carry:
    """`lax.while_loop` for a carry that holds a pool, whose predicate is one value under `vmap`.

    A predicate of its own for each mapped carry would make XLA select every carry whole, pool
    included, at every turn. Here all go on while any is unfinished: `body` must leave a carry that
    is finished as it is, its counters too.

    Args:
      unfinished: carry → bool[].
      body: carry → carry, of the same shapes.
      carry: where the loop begins.
    """
    return jax.lax.while_loop(lambda carry: any_mapped(unfinished(carry)), body, carry)


@custom_vmap
def any_mapped(flag: Array) -> Array:
    """bool[]: the flag itself; under `vmap` whether any of the mapped flags is set, unmapped."""
    return flag


@any_mapped.def_vmap
def _any_of_batch(size: int, batched: list[bool], flag: Array) -> tuple[Any, bool]:
    del size
    # Goes through the rule again, for a vmap around this one.
    return any_mapped(jnp.any(flag) if batched[0] else flag), False


def run_if(wanted: Array, body: Callable[[Array, Carry], Carry], carry: Carry) -> Carry:
    """Runs a body once if it is wanted: a loop of at most one round, which keeps a pool in place.

    A conditional would copy it. Under `vmap` the body runs for all where any wants it.

    Args:
      wanted: bool[].
      body: (wanted, carry) → carry, which must leave a carry that does not want it as it is.
      carry: of fixed shapes.
    """

    def once(loop: tuple[Array, Carry]) -> tuple[Array, Carry]:
        wanted, carry = loop
        return jnp.zeros_like(wanted), body(wanted, carry)

    return while_any(lambda loop: loop[0], once, (wanted, carry))[1]
