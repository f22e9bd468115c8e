"""Searches driven from the host: watched while they run, and cut with the best so far in hand."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from types import FrameType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax.engine import Model, State
from dendrite_jax.search.protocol import Functions
from dendrite_jax.search.registry import Search
from dendrite_jax.search.result import SearchResult
from dendrite_jax.serving.compilation import loop_options

Options = Mapping[str, Any]
"""`compiler_options` of `jax.jit`."""


class Programs(NamedTuple):
    """The jitted functions of a search; one set serves all searches of a kind, whatever weights."""

    start: Any  # (pieces, state, roots, key, config) → loop; consumes the state
    advance: Any  # (model, pieces, loop) → loop; consumes the loop
    look: Any  # (pieces, loop) → result, whether unfinished
    finish: Any  # (pieces, *_apart(loop)) → state, result; consumes the state


def programs(search: Search, options: Options | None = None) -> Programs:
    """The programs of a search, the same ones whenever its functions and the options are."""
    chosen = (loop_options() or {}) if options is None else options
    return _programs(search.functions, tuple(sorted(chosen.items())))


@cache
def _programs(functions: Functions, options: tuple[tuple[str, Any], ...]) -> Programs:
    compiled = partial(jax.jit, compiler_options=dict(options) or None)

    def look(pieces: Any, loop: Any) -> tuple[SearchResult, Array]:
        return functions.read(pieces, loop), functions.unfinished(loop)

    def finish(pieces: Any, state: State, rest: Any) -> tuple[State, SearchResult]:
        loop = rest.replace(session=rest.session.replace(state=state))
        return functions.finish(pieces, loop)

    return Programs(
        start=compiled(functions.start, static_argnames="config", donate_argnums=1),
        advance=compiled(functions.advance, donate_argnums=2),
        look=compiled(look),
        finish=compiled(finish, donate_argnums=1),
    )


def _apart(loop: Any) -> tuple[State, Any]:
    """The engine's state of a loop, and the loop without it: the end gives back nothing else."""
    return loop.session.state, loop.replace(session=loop.session.replace(state=None))


def compile_search(
    search: Search,
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    options: Options | None = None,
    also: Sequence[jax.stages.Traced] = (),
) -> None:
    """Compiles the programs of a search, at the same time, where they are not compiled yet.

    The one that advances the search takes longest: it is lowered first, and the others while it
    compiles.

    Args:
      search: from the registry.
      model: the model.
      state: of the shape to search in; this and the next two may be `jax.ShapeDtypeStruct`s.
      roots: i32[problems].
      key: a random key, or one a problem.
      options: as in `search_on_host`.
      also: other traced programs to compile beside them.
    """
    own, pieces = programs(search, options), search.pieces
    started = own.start.trace(pieces, state, roots, key, config=search.config)
    advanced = own.advance.trace(model, pieces, started.out_info)
    others = [
        started,
        own.look.trace(pieces, advanced.out_info),
        own.finish.trace(pieces, *_apart(advanced.out_info)),
        *also,
    ]
    with ThreadPoolExecutor(1 + len(others)) as threads:
        compiling = [threads.submit(each.lower().compile) for each in (advanced, *others)]
        for each in compiling:
            each.result()


def search_on_host(
    search: Search,
    model: Model,
    state: State,
    roots: Array,
    key: Array,
    *,
    watch: Callable[[SearchResult], None] | None = None,
    time_limit: float | None = None,
    options: Options | None = None,
    give_back: Callable[[State], None] | None = None,
) -> tuple[State, SearchResult]:
    """Runs a search, one `advance` after the other.

    Ctrl-C ends it after the `advance` that is under way, as the time limit does; what was found is
    returned, and `result.cut` marks the problems that were not done. A second Ctrl-C interrupts.

    Args:
      search: from the registry.
      model: the model.
      state: the engine state, consumed.
      roots: i32[problems], a prefilled branch a problem; they stay held.
      key: a random key, or one a problem.
      watch: called with what there is, in numpy arrays, after each `advance`.
      time_limit: seconds, without those that compiling takes.
      options: for the compiler; None takes `loop_options`.
      give_back: called with the state at the end, also when `watch` raises.

    Returns:
      The state, with every branch but the roots freed, and the result in numpy arrays.

    Raises:
      BranchError: a root is not held or holds no token; nothing was run, the state is as it was.
      CapacityError: a root's prompt found no room; likewise.
      ValueError: a time limit that is not positive; likewise.
    """
    check_time_limit(time_limit)
    check_roots(state, roots)
    if time_limit is not None:
        compile_search(search, model, state, roots, key, options)
    own, pieces = programs(search, options), search.pieces
    end = math.inf if time_limit is None else time.monotonic() + time_limit
    with _interrupts_held() as interrupted:
        loop = own.start(pieces, state, roots, key, config=search.config)
        try:
            unfinished = True
            while unfinished and not interrupted() and time.monotonic() < end:
                loop = own.advance(model, pieces, loop)
                result, unfinished = jax.device_get(own.look(pieces, loop))
                if watch is not None:
                    watch(result)
        finally:
            state, result = own.finish(pieces, *_apart(loop))
            if give_back is not None:
                give_back(state)
    return state, jax.device_get(result)


def check_time_limit(time_limit: float | None) -> None:
    """Raises ValueError for a limit that is not a positive number of seconds."""
    if time_limit is not None and not time_limit > 0:
        raise ValueError(f"time_limit is {time_limit}; it must be above 0 seconds")


def check_roots(state: State, roots: Array) -> None:
    """Raises BranchError or CapacityError for a root that cannot be searched from."""
    ids = np.asarray(roots)
    alive, length, stale = jax.device_get((state.cache.alive, state.cache.length, state.stale))
    for number, branch in enumerate(ids.tolist()):
        if not (0 <= branch < alive.size and alive[branch]):
            raise kv.BranchError(
                f"root {number} is branch {branch}, which is not held; a prompt that found no slot "
                f"has none, and num_slots is {alive.size}"
            )
    error = kv.find_error(state.cache.replace(misuse=jnp.int32(0)), ids.tolist())
    if error is not None:
        raise error
    for number, branch in enumerate(ids.tolist()):
        if length[branch] == 0:
            raise kv.BranchError(f"root {number}, branch {branch}, is empty: it holds no token")
        if stale[branch]:
            raise kv.BranchError(
                f"root {number}, branch {branch}, was cut and does not know what follows; "
                f"engine.rewind tells it"
            )


@contextmanager
def _interrupts_held() -> Iterator[Callable[[], bool]]:
    """Within, the first Ctrl-C is only told by the yielded function; the next one interrupts."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked = False

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            signal.default_int_handler(number, frame)
        asked = True

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler if before is None else before)
