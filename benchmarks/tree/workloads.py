"""The two workloads of `dendrite bench tree`, timed on the engine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax.benchmarks.harness.counts import check_counts
from dendrite_jax.benchmarks.tree.programs import Grown, TreePrograms, random_prompt
from dendrite_jax.engine import State

TREE_RUNS = 3
"""Times that a complete tree is grown; the first one warms up."""


class Rounds(NamedTuple):
    """Seconds of rounds in a row."""

    prefill: float  # of the prompt alone
    first: float  # prompt and first round, started together
    later: tuple[float, ...]  # each further round
    idle: float  # a round in which no lane is used: all but its loop

    @property
    def median(self) -> float:
        """Of a later round."""
        return statistics.median(self.later)


class CompleteTree(NamedTuple):
    """Seconds of a complete tree, and what it counted."""

    prefill: float
    levels: tuple[float, ...]
    ledger: dict[str, int]
    peak_blocks: int

    @property
    def total(self) -> float:
        return self.prefill + sum(self.levels)


def measure_rounds(programs: TreePrograms, keep: int, width: int) -> Rounds:
    """Rounds from one prompt; the first grows it in `keep * width` ways."""
    sizes = programs.sizes
    lanes = keep * width
    tokens = random_prompt(programs.model, sizes.prompt)

    state, root = programs.prompt(programs.empty(), tokens)
    state, grown = programs.grow(state, root, lanes, lanes, keep)
    jax.block_until_ready(grown)

    state = programs.empty()
    start = time.perf_counter()
    state, root = jax.block_until_ready(programs.prompt(state, tokens))
    prefill = time.perf_counter() - start

    state = programs.empty()
    before = state.cache.ledger.totals()
    start = time.perf_counter()
    state, root = programs.prompt(state, tokens)
    state, grown = programs.grow(state, root, lanes, lanes, keep)
    jax.block_until_ready(grown)
    first = time.perf_counter() - start

    later: list[float] = []
    for seed in range(1, sizes.num_rounds):
        state, grown, seconds = _timed_grow(programs, state, grown.kept, lanes, width, keep, seed)
        later.append(seconds)
    _check_counts(programs, state, before, len(tokens), [lanes] * sizes.num_rounds)
    none = jnp.full(lanes, -1, jnp.int32)
    idle: list[float] = []
    before = state.cache.ledger.totals()
    for _ in range(sizes.num_rounds):
        state, _, seconds = _timed_grow(programs, state, none, lanes, width, keep)
        idle.append(seconds)
    check_counts(before, state.cache, steps=0, generated=0)
    kv.raise_errors(state.cache)
    return Rounds(prefill, first, tuple(later), statistics.median(idle))


def measure_tree(programs: TreePrograms, prefix: int) -> CompleteTree:
    """A complete tree below a prefix, level by level; the fastest of the runs after the first."""
    runs = [_grow_tree(programs, prefix) for _ in range(TREE_RUNS)]
    return min(runs[1:], key=lambda run: run.total)


def _grow_tree(programs: TreePrograms, prefix: int) -> CompleteTree:
    sizes = programs.sizes
    tokens = random_prompt(programs.model, prefix)
    state = programs.empty()
    before = state.cache.ledger.totals()
    start = time.perf_counter()
    state, frontier = jax.block_until_ready(programs.prompt(state, tokens))
    prefill = time.perf_counter() - start
    levels: list[float] = []
    for count in sizes.level_thoughts:
        state, grown, seconds = _timed_grow(
            programs, state, frontier, count, sizes.branching, count
        )
        frontier = grown.kept
        levels.append(seconds)
    kv.raise_errors(state.cache)
    _check_counts(programs, state, before, prefix, sizes.level_thoughts)
    ledger = state.cache.ledger.totals()
    return CompleteTree(prefill, tuple(levels), ledger, int(state.cache.peak_blocks))


def _check_counts(
    programs: TreePrograms,
    state: State,
    before: Mapping[str, int],
    prefix: int,
    thoughts: Sequence[int],
) -> None:
    """Raises CountError unless a prompt was run and so many thoughts grown, a level each."""
    sizes = programs.sizes
    check_counts(
        before,
        state.cache,
        prefilled=prefix,
        generated=sizes.thought * sum(thoughts),
        steps=prefix // sizes.piece + sizes.thought * len(thoughts),
    )


def _timed_grow(
    programs: TreePrograms, state: State, frontier: Array, *sizes: int
) -> tuple[State, Grown, float]:
    start = time.perf_counter()
    state, grown = programs.grow(state, frontier, *sizes)
    jax.block_until_ready(grown)
    return state, grown, time.perf_counter() - start
