"""The engine's state in a search, with what the scorer keeps beside it.

A search forks, extends and frees branches by a session's methods, so that a scorer with a cache of
its own (a reward model) can follow. Nothing else of a search depends on whether its scorer has one.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax import engine
from dendrite_jax.cache import NO_BRANCH, Ledger
from dendrite_jax.cache.state import CONTEXT_FULL, EMPTY_BRANCH, OUT_OF_BLOCKS
from dendrite_jax.engine import Model, State
from dendrite_jax.search.checks import problem_keys
from dendrite_jax.search.outcome import (
    BAD_PROMPT,
    COMPLETE,
    EMPTY_PROMPT,
    NO_ROOM,
    NO_ROOT,
    STALE_ROOT,
)
from dendrite_jax.search.score.scored import Scored, Scorer, as_scored
from dendrite_jax.search.thoughts import Thoughts


@runtime_checkable
class StatefulScorer(Protocol):
    """A scorer that follows the search's branches with a state of its own, without weights.

    Branch ids here are the search's; its state has something for each of them. A lane with a
    negative id is idle.
    """

    def open(self, state: State, roots: Array) -> Any:
        """The scorer's state of the roots i32[problems]."""
        ...

    def fork(self, own: Any, parents: Array, children: Array) -> Any:
        """The search made children i32[n] of parents i32[n]; negative where it did not."""
        ...

    def append(self, own: Any, branches: Array, tokens: Array, count: Array) -> Any:
        """The search appended tokens i32[n, length], count i32[n] of them, without a score."""
        ...

    def score(self, own: Any, model: Model, state: State, thoughts: Thoughts) -> tuple[Any, Scored]:
        """Judges thoughts that the search just appended; `own` has not seen their tokens."""
        ...

    def free(self, own: Any, branches: Array) -> Any:
        """The search freed branches i32[n]."""
        ...

    def ledger(self, own: Any) -> Ledger:
        """What the scorer has cost since it was opened."""
        ...


AnyScorer = Scorer | StatefulScorer


class Session(struct.PyTreeNode):
    """What a search holds of the engine and of its scorer; never weights."""

    state: State
    scorer_state: Any = None
    """Of a `StatefulScorer`; None for any other."""

    def fork(self, scorer: AnyScorer, parents: Array) -> tuple[Session, Array]:
        """`engine.fork`, followed by the scorer."""
        state, children = engine.fork(self.state, parents)
        own = self.scorer_state
        if isinstance(scorer, StatefulScorer):
            own = scorer.fork(own, parents, children)
        return Session(state, own), children

    def append(
        self, scorer: AnyScorer, model: Model, branches: Array, tokens: Array
    ) -> tuple[Session, Array]:
        """Appends the same tokens i32[length] to branches i32[n]; bool[n], where they had room."""
        rows = jnp.broadcast_to(tokens, (branches.shape[0], tokens.shape[0]))
        count = jnp.full(branches.shape, tokens.shape[0])
        state, stepped = engine.prefill(model, self.state, branches, rows, count)
        own = self.scorer_state
        if isinstance(scorer, StatefulScorer):
            own = scorer.append(own, branches, rows, count)
        return Session(state, own), stepped.ok

    def score(self, scorer: AnyScorer, model: Model, thoughts: Thoughts) -> tuple[Session, Scored]:
        """Judges thoughts just appended, each once; one that ends its grammar is an answer too."""
        session = self
        given: Any
        if isinstance(scorer, StatefulScorer):
            own, given = scorer.score(self.scorer_state, model, self.state, thoughts)
            session = self.replace(scorer_state=own)
        else:
            given = scorer(model, self.state, thoughts)
        scored = as_scored(given, thoughts)
        ended = engine.has_ended(self.state, thoughts.branch)
        return session, scored._replace(answer=scored.answer | ended)

    def free(self, scorer: AnyScorer, branches: Array) -> Session:
        """`engine.free`, followed by the scorer."""
        own = self.scorer_state
        if isinstance(scorer, StatefulScorer):
            own = scorer.free(own, branches)
        return Session(engine.free(self.state, branches), own)

    def ledger(self, scorer: AnyScorer) -> Ledger:
        """The state's ledger; tokens scored are those of the scorer's own model if it has one."""
        own = self.state.cache.ledger
        if isinstance(scorer, StatefulScorer):
            own = own.replace(scored=scorer.ledger(self.scorer_state).scored)
        return own


class Opened(NamedTuple):
    """What a search begins with."""

    session: Session
    roots: Array  # i32[problems], NO_BRANCH for one that cannot be searched from
    keys: Array  # a typed key array [problems]
    outcome: Array  # i32[problems], of the roots
    before: Ledger  # of the session, before the search


def open_session(scorer: AnyScorer, state: State, roots: Array, key: Array) -> Opened:
    """The session of a search from roots, which get new random keys.

    Args:
      scorer: of the search.
      state: the engine state.
      roots: i32[problems], that hold their prompts.
      key: a random key, or one a problem.

    Raises:
      ValueError: not such keys.
    """
    keys = problem_keys(key, roots.shape[0])
    state, roots, outcome = check_roots(state, roots)
    state = engine.set_keys(state, roots, keys)
    own = scorer.open(state, roots) if isinstance(scorer, StatefulScorer) else None
    session = Session(state, own)
    return Opened(session, roots, keys, outcome, session.ledger(scorer))


def check_roots(state: State, roots: Array) -> tuple[State, Array, Array]:
    """The roots i32[problems], NO_BRANCH for one that is empty, or that was cut and is stale.

    Each raises a misuse flag. Also the roots' outcomes i32[problems]. A root whose prompt found no
    room stays: its own flag stops whatever grows from it.
    """
    cache = state.cache
    slot = jnp.clip(roots, 0, cache.num_slots - 1)
    held = (roots == slot) & cache.alive[slot]
    error = cache.error[slot]
    empty = held & (error == 0) & (cache.length[slot] == 0)
    misuse = cache.misuse | jnp.where(jnp.any(empty), EMPTY_BRANCH, 0)
    state = state.replace(cache=cache.replace(misuse=misuse))
    told = jnp.where(empty, NO_BRANCH, roots)
    state, whole = engine.without_stale(state, told)
    ready = jnp.where(error == 0, whole, told)
    full = error & (OUT_OF_BLOCKS | CONTEXT_FULL)
    outcome = jnp.where(error == 0, COMPLETE, jnp.where(full > 0, NO_ROOM, BAD_PROMPT))
    outcome = jnp.where(told != ready, STALE_ROOT, outcome)
    outcome = jnp.where(empty, EMPTY_PROMPT, outcome)
    return state, ready, jnp.where(held, outcome, NO_ROOT).astype(jnp.int32)
