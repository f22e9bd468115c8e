"""The protocol of all searches: four functions of a module, and the pieces they are given.

A module that holds a search defines

    start(pieces, state, roots, key, config) → loop
    advance(model, pieces, loop) → loop
    unfinished(loop) → bool[]
    finish(pieces, loop) → state, result

and `read(pieces, loop) → result`, which looks at a search before its end. The search itself is
`finish` after `advance` while `unfinished` after `start`. A loop is a pytree that carries the
session, the tree and the counters, and its config as a static field; it holds no weights, so that
it can be donated, saved and compared. The model and the pieces are arguments, so that their weights
are operands of a compiled program. `advance` leaves a loop that is finished exactly as it is, its
ledger too: under `vmap` all loops go on while any is unfinished (`engine.loops`).
"""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol

from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.engine.loops import while_any
from dendrite_jax.search.piece import Piece
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.score.scored import mean_loglikelihood
from dendrite_jax.search.select import Select, best_first
from dendrite_jax.search.session import AnyScorer
from dendrite_jax.search.thoughts import Expand


class Functions(Protocol):
    """A module with the functions of a search."""

    def __hash__(self) -> int: ...

    def start(self, pieces: Any, state: State, roots: Array, key: Any, config: Any) -> Any:
        """The search before its first `advance`; consumes the state.

        Args:
          pieces: of the search.
          state: the engine state; donate it under jit.
          roots: i32[problems], a prefilled branch a problem; they stay held, with new random keys.
          key: a random key, or one a problem; None where the search draws nothing.
          config: static shape of the search.
        """
        ...

    def advance(self, model: Model, pieces: Any, loop: Any) -> Any:
        """The search one level, expansion, simulation batch or token further; donate the loop."""
        ...

    def unfinished(self, loop: Any) -> Array:
        """bool[], whether some problem still searches."""
        ...

    def read(self, pieces: Any, loop: Any) -> SearchResult:
        """What has been found so far; the search can go on."""
        ...

    def finish(self, pieces: Any, loop: Any) -> tuple[State, SearchResult]:
        """Ends a search, which may be unfinished: frees all branches but the roots, and reads."""
        ...


class Pieces(Piece):
    """The replaceable parts of a search over thoughts."""

    expand: Expand
    score: AnyScorer = mean_loglikelihood
    select: Select = best_first
    commit: Array | None = None  # i32[n], appended to a thought before it is expanded
    last: Expand | None = None  # makes the thoughts of the last level instead, if levels there are


def run_search(
    functions: Functions,
    model: Model,
    pieces: Any,
    state: State,
    roots: Array,
    key: Any,
    config: Any,
) -> tuple[State, SearchResult]:
    """A whole search in one call, pure; the arguments are those of its functions."""
    loop = functions.start(pieces, state, roots, key, config)
    loop = while_any(functions.unfinished, partial(functions.advance, model, pieces), loop)
    return functions.finish(pieces, loop)
