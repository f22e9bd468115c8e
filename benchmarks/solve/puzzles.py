"""Puzzles a minute: this engine against the same search written with transformers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.harness.counts import CountError
from dendrite_jax.tasks.game24.game.graph import load_test_puzzles
from dendrite_jax.tasks.game24.solutions import Results
from dendrite_jax.tasks.game24.solve import Game24Search, load_solver

BREADTH, PROPOSALS = 5, 40
NUM_PUZZLES = 20
PEER_PUZZLES = 5
"""Fewer for transformers, which takes longer."""


def run() -> dict[str, Any]:
    """Times the search one puzzle at a time and in a batch, compilation left out."""
    puzzles = [tuple(map(int, puzzle)) for puzzle in load_test_puzzles()[:NUM_PUZZLES]]
    pretrained = load_solver()
    search = Game24Search(*pretrained, sizes={"breadth": BREADTH, "proposals": PROPOSALS})

    search.solve(puzzles[:1])
    start = time.perf_counter()
    singly = [search.solve([puzzle]) for puzzle in puzzles]
    seconds = time.perf_counter() - start
    rows = [_own_row("one at a time", singly, seconds)]

    search.solve_batch(puzzles)
    start = time.perf_counter()
    results = search.solve_batch(puzzles)
    rows.append(_own_row("one batch", [results], time.perf_counter() - start))

    peer = _peer_row(pretrained.tokenizer, puzzles[:PEER_PUZZLES])
    return {
        "benchmark": "solve",
        "environment": harness.environment(),
        "breadth": BREADTH,
        "proposals": PROPOSALS,
        "rows": rows if peer is None else [*rows, peer],
        "speedup": None if peer is None else _speedups(rows, peer),
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    harness.print_table("Game of 24, tree of thoughts", result["rows"])
    if result["speedup"] is not None:
        harness.print_table("times as many puzzles a minute", [result["speedup"]])


def _peer_row(tokenizer: Any, puzzles: list[tuple[int, ...]]) -> dict[str, Any] | None:
    """The same search with transformers; None where it isn't installed."""
    from dendrite_jax.benchmarks.solve.transformers_search import TransformersSearch

    try:
        peer = TransformersSearch(tokenizer, BREADTH, PROPOSALS)
    except ImportError:
        return None
    peer.solve(puzzles[0])
    start = time.perf_counter()
    solved = sum(peer.solve(puzzle) for puzzle in puzzles)
    return _row("transformers", len(puzzles), solved, time.perf_counter() - start)


def _own_row(name: str, searches: Sequence[Results], seconds: float) -> dict[str, Any]:
    """The row of timed searches; CountError if one of them did nothing by its ledger."""
    for found in searches:
        if not found.ledger["generated"] or not found.ledger["steps"]:
            raise CountError(f"a search that was timed counts {found.ledger}")
    solutions = [solution for found in searches for solution in found.solutions]
    return _row(name, len(solutions), sum(each.any_solved for each in solutions), seconds)


def _row(name: str, puzzles: int, solved: int, seconds: float) -> dict[str, Any]:
    return {
        "search": name,
        "puzzles": puzzles,
        "solved": solved,
        "seconds": seconds,
        "puzzles_per_minute": 60 * puzzles / seconds,
    }


def _speedups(rows: list[dict[str, Any]], peer: dict[str, Any]) -> dict[str, float]:
    return {row["search"]: row["puzzles_per_minute"] / peer["puzzles_per_minute"] for row in rows}
