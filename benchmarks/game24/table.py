"""Game of 24 on the strict hold-out: every search, each beside its controls.

`python -m dendrite_jax.benchmarks.game24 --out FILE` scores the 100 test puzzles of Yao et al.
(2023). The embedded model is trained for this task, so its figures say nothing beside theirs. Each
row stands beside the same search with random values, and beside random legal moves without a model
for as many tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.game24.plot import success_plot
from dendrite_jax.benchmarks.game24.uniform_play import success_of_plays
from dendrite_jax.benchmarks.harness.intervals import interval
from dendrite_jax.models import Pretrained
from dendrite_jax.search import RandomValues
from dendrite_jax.tasks.game24.game.graph import load_test_puzzles
from dendrite_jax.tasks.game24.game.rules import MAX_TARGET, MIN_TARGET
from dendrite_jax.tasks.game24.scoring import Game24Scorer
from dendrite_jax.tasks.game24.solutions import Results
from dendrite_jax.tasks.game24.solve import Game24Search, load_solver

BATCH = 20
"""Puzzles searched at once; bounds the cache, not the result of a puzzle."""
PLAY_TOKENS = 28
"""What three legal steps take to write, about."""


@dataclass(frozen=True)
class Row:
    """One search of the table.

    Attributes:
      label: its name there.
      method: of `search.registry`.
      sizes: of the method.
      seeds: how often every puzzle is searched.
      control: whether the search ranks by values, so that random ones are a control.
    """

    label: str
    method: str
    sizes: dict[str, int] = field(default_factory=dict)
    seeds: int = 1
    control: bool = True


def _wide(breadth: int, proposals: int) -> dict[str, int]:
    return {"breadth": breadth, "proposals": proposals}


def _deep(expansions: int) -> dict[str, int]:
    return {"proposals": 8, "expansions": expansions}


ROWS = (
    Row("greedy", "greedy", control=False),
    Row("sample (best of 1)", "sample", seeds=3, control=False),
    Row("best of 10", "best-of-n", {"proposals": 10}, seeds=3),
    Row("tree of thoughts, b=5", "tot-bfs", _wide(5, 40), seeds=3),
    Row("MCTS, 15 expansions", "mcts", _deep(15), seeds=3),
    Row("tree of thoughts, depth first, ≤ 15 expansions", "tot-dfs", _deep(15), seeds=3),
    Row("beam by likelihood, 5 wide", "beam", _wide(5, 40), seeds=3),
    Row("tree of thoughts, b=1", "tot-bfs", _wide(1, 40), seeds=3),
    Row("best of 100", "best-of-n", {"proposals": 100}),
    Row("tree of thoughts, b=25", "tot-bfs", _wide(25, 200)),
)
"""Beam, depth first and MCTS sample no more steps than tree of thoughts with b=1 and b=5: 120."""
DEEP_ROWS = (
    Row("MCTS, 75 expansions", "mcts", {**_deep(75), "simulations": 1000}),
    Row("tree of thoughts, depth first, ≤ 75 expansions", "tot-dfs", _deep(75)),
    Row("beam by likelihood, 25 wide", "beam", _wide(25, 200)),
)
"""With the budget of tree of thoughts with b=25, 600 steps."""


def run(
    target: int = 24,
    deep: bool = False,
    puzzles: Sequence[tuple[int, ...]] | None = None,
    rows: Sequence[Row] | None = None,
    each: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Scores searches on puzzles.

    Args:
      target: the number to make.
      deep: whether `DEEP_ROWS` are scored too.
      puzzles: the test puzzles when None.
      rows: `ROWS` when None.
      each: called with what there is after each row.
    """
    if puzzles is None:
        puzzles = [tuple(map(int, puzzle)) for puzzle in load_test_puzzles()]
    if rows is None:
        rows = (*ROWS, *DEEP_ROWS) if deep else ROWS
    result: dict[str, Any] = {
        "benchmark": "game24",
        "environment": harness.environment(),
        "target": target,
        "puzzles": len(puzzles),
        "interval": "95%, Wilson's with the effective number of runs",
        "rules_reject_illegal_lines": True,
        "rows": [],
    }
    pretrained = load_solver()
    for row in rows:
        result["rows"].append(_score(row, pretrained, puzzles, target))
        each(result)
    return result


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    title = f"Game of 24, {result['puzzles']} held-out puzzles, target {result['target']}"
    harness.print_table(title, [_shown(row) for row in result["rows"]])


def _score(
    row: Row, pretrained: Pretrained, puzzles: Sequence[tuple[int, ...]], target: int
) -> dict[str, Any]:
    """A search and its controls."""
    search = Game24Search(*pretrained, method=row.method, sizes=row.sizes)
    runs = [_solve_all(search, puzzles, target, seed) for seed in range(row.seeds)]
    best = np.array([[s.solved for s in run.results.solutions] for run in runs])
    kept = np.array([[s.any_solved for s in run.results.solutions] for run in runs])
    tokens = float(np.mean([run.results.ledger["generated"] for run in runs])) / len(puzzles)
    control = None
    if row.control:
        random = Game24Search(
            *pretrained, method=row.method, sizes=row.sizes, score=RandomValues(Game24Scorer())
        )
        control = _solve_all(random, puzzles, target, seed=0).results
    return {
        "method": row.label,
        "search": row.method,
        "sizes": row.sizes,
        "seeds": row.seeds,
        "best_answer_right": float(np.mean(best)),
        "best_answer_interval": interval(best),
        "best_answer_right_by_seed": np.mean(best, axis=1).tolist(),
        "any_kept_right": float(np.mean(kept)),
        "any_kept_interval": interval(kept),
        "step_legality": float(np.mean([run.results.legality for run in runs])),
        "tokens_per_puzzle": tokens,
        "reused_per_puzzle": _mean_count(runs, "reused") / len(puzzles),
        "forks_per_puzzle": _mean_count(runs, "forks") / len(puzzles),
        "seconds": float(np.mean([run.seconds for run in runs])),
        "random_values_best_right": control.success_rate if control else None,
        "random_values_any_right": control.any_success_rate if control else None,
        "uniform_play_any_right": success_of_plays(puzzles, target, tokens / PLAY_TOKENS),
    }


@dataclass(frozen=True)
class _Run:
    results: Results
    seconds: float
    """All batches at the median batch's time, so that compilation is left out."""


def _solve_all(
    search: Game24Search, puzzles: Sequence[tuple[int, ...]], target: int, seed: int
) -> _Run:
    """Solves the puzzles in batches; no batch of any seed shares its random key with another."""
    batches = [puzzles[first : first + BATCH] for first in range(0, len(puzzles), BATCH)]
    parts, seconds = [], []
    for index, batch in enumerate(batches):
        start = time.perf_counter()
        parts.append(search.solve_batch(batch, target, seed * len(batches) + index))
        seconds.append(time.perf_counter() - start)
    solutions = tuple(solution for part in parts for solution in part.solutions)
    ledger = {name: sum(part.ledger[name] for part in parts) for name in parts[0].ledger}
    return _Run(Results(solutions, ledger), float(np.median(seconds)) * len(batches))


def _mean_count(runs: Sequence[_Run], name: str) -> float:
    return float(np.mean([run.results.ledger[name] for run in runs]))


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """A row as people read it."""

    def rate(name: str) -> str | None:
        if row[f"{name}_right"] is None:
            return None
        text = f"{row[f'{name}_right']:.0%}"
        ends = row.get(f"{name}_interval")
        return f"{text} ({ends[0]:.0%}–{ends[1]:.0%})" if ends else text

    return {
        "method": row["method"],
        "best right": rate("best_answer"),
        "any kept right": rate("any_kept"),
        "random values": rate("random_values_best"),
        "random, any": rate("random_values_any"),
        "uniform play, any": rate("uniform_play_any"),
        "legal": f"{row['step_legality']:.0%}",
        "tokens": round(row["tokens_per_puzzle"]),
        "forks": round(row["forks_per_puzzle"]),
        "seconds": round(row["seconds"]),
    }


@click.command()
@click.option(
    "--target", type=click.IntRange(MIN_TARGET, MAX_TARGET), default=24, show_default=True
)
@click.option("--deep", is_flag=True, help="Also depth first, beam and MCTS at b=25's budget.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True)
@click.option(
    "--plot", type=click.Path(dir_okay=False, path_type=Path), default=None, help="Write an SVG."
)
def main(target: int, deep: bool, out: Path, plot: Path | None) -> None:
    """Scores the test puzzles; writes the result after each row, and the plot at the end."""
    result = run(target, deep, each=lambda so_far: harness.save(so_far, out))
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        plot.write_text(success_plot(result["rows"]), encoding="utf-8")
    show(result)
