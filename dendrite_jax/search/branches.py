"""The branches that a search holds, with what a scorer keeps beside them.

A search forks, extends and frees branches by these functions, so that a scorer with a cache of its
own (a reward model) can follow. Nothing else of a search depends on whether its scorer has one.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax import engine
from dendrite_jax.cache import Ledger
from dendrite_jax.cache.state import EMPTY_BRANCH
from dendrite_jax.engine import Model, State
from dendrite_jax.search.expand import Thoughts
from dendrite_jax.search.scoring import Scored, Scorer


@runtime_checkable
class StatefulScorer(Protocol):
    """A scorer that follows the search's branches with a pytree of its own, its `mirror`.

    The mirror has a branch for each of the search's; branch ids here are the search's. A lane with
    a negative id is idle.
    """

    def open(self, state: State, roots: Array) -> Any:
        """The mirror of the roots i32[problems]."""
        ...

    def fork(self, mirror: Any, parents: Array, children: Array) -> Any:
        """The search made children i32[n] of parents i32[n]; negative where it did not."""
        ...

    def append(self, mirror: Any, branches: Array, tokens: Array, count: Array) -> Any:
        """The search appended tokens i32[n, length], count i32[n] of them, without a score."""
        ...

    def score(
        self, mirror: Any, model: Model, state: State, thoughts: Thoughts
    ) -> tuple[Any, Scored]:
        """Judges thoughts that the search just appended; the mirror has not seen their tokens."""
        ...

    def free(self, mirror: Any, branches: Array) -> Any:
        """The search freed branches i32[n]."""
        ...

    def ledger(self, mirror: Any) -> Ledger:
        """What the mirror has cost since it was opened."""
        ...


AnyScorer = Scorer | StatefulScorer


class Branches(struct.PyTreeNode):
    """The engine's state, and the scorer's mirror of it (None for a scorer without one)."""

    state: State
    mirror: Any = None


def refuse_empty(state: State, roots: Array) -> tuple[State, Array]:
    """The roots i32[problems], −1 for one whose prompt is empty, or that was cut and is stale.

    Each raises a misuse flag.

    A root whose prompt found no room stays: its own flag stops whatever grows from it.
    """
    cache = state.cache
    slot = jnp.clip(roots, 0, cache.num_slots - 1)
    empty = (roots == slot) & cache.alive[slot] & (cache.length[slot] == 0)
    empty &= cache.error[slot] == 0
    misuse = cache.misuse | jnp.where(jnp.any(empty), EMPTY_BRANCH, 0)
    state = state.replace(cache=cache.replace(misuse=misuse))
    return engine.without_stale(state, jnp.where(empty, -1, roots))


def hold_roots(
    scorer: AnyScorer, state: State, roots: Array, key: Array
) -> tuple[Branches, Array, Array, Ledger]:
    """What a search begins with.

    Args:
      scorer: of the search.
      state: the engine state.
      roots: i32[problems], that hold their prompts; they get new random keys.
      key: a random key, or one a problem.

    Returns:
      The branches; the roots, as `refuse_empty` gives them; a random key a problem; the ledger
      before the search.
    """
    state, roots = refuse_empty(state, roots)
    keys = key if key.ndim else jax.random.split(key, roots.shape[0])
    state = engine.set_keys(state, roots, keys)
    mirror = scorer.open(state, roots) if isinstance(scorer, StatefulScorer) else None
    held = Branches(state, mirror)
    return held, roots, keys, ledger(scorer, held)


def start(
    scorer: AnyScorer, state: State, roots: Array, key: Array
) -> tuple[Branches, Array, Array, Array, Ledger]:
    """A search's first branches; arguments as in `hold_roots`.

    Returns:
      The branches; the problems' key words u32[problems, 2]; a child of each root i32[problems];
      the bool[problems] that have none for want of room; the ledger before the search.
    """
    held, roots, keys, before = hold_roots(scorer, state, roots, key)
    held, first = fork(scorer, held, roots)
    refused = (roots >= 0) & (first < 0)
    return held, jax.random.key_data(keys), first, refused, before


def fork(scorer: AnyScorer, held: Branches, parents: Array) -> tuple[Branches, Array]:
    """`engine.fork`, in the mirror too."""
    state, children = engine.fork(held.state, parents)
    mirror = held.mirror
    if isinstance(scorer, StatefulScorer):
        mirror = scorer.fork(mirror, parents, children)
    return Branches(state, mirror), children


def append(
    scorer: AnyScorer, model: Model, held: Branches, branches: Array, tokens: Array
) -> tuple[Branches, Array]:
    """Appends the same tokens i32[length] to each branch i32[n]; bool[n], where they had room."""
    rows = jnp.broadcast_to(tokens, (branches.shape[0], tokens.shape[0]))
    count = jnp.full(branches.shape, tokens.shape[0])
    state, stepped = engine.prefill(model, held.state, branches, rows, count)
    mirror = held.mirror
    if isinstance(scorer, StatefulScorer):
        mirror = scorer.append(mirror, branches, rows, count)
    return Branches(state, mirror), stepped.ok


def score(
    scorer: AnyScorer, model: Model, held: Branches, thoughts: Thoughts
) -> tuple[Branches, Scored]:
    """Judges thoughts just appended, each once; one that ends its grammar is an answer too."""
    if isinstance(scorer, StatefulScorer):
        mirror, scored = scorer.score(held.mirror, model, held.state, thoughts)
        held = held.replace(mirror=mirror)
    else:
        scored = scorer(model, held.state, thoughts)
    ended = engine.has_ended(held.state, thoughts.branch)
    return held, scored._replace(answer=scored.answer | ended)


def free(scorer: AnyScorer, held: Branches, branches: Array) -> Branches:
    """`engine.free`, in the mirror too."""
    mirror = held.mirror
    if isinstance(scorer, StatefulScorer):
        mirror = scorer.free(mirror, branches)
    return Branches(engine.free(held.state, branches), mirror)


def ledger(scorer: AnyScorer, held: Branches) -> Ledger:
    """The state's ledger; tokens scored are those of the scorer's mirror if it has one."""
    own = held.state.cache.ledger
    if isinstance(scorer, StatefulScorer):
        own = own.replace(scored=scorer.ledger(held.mirror).scored)
    return own
