"""What the bookkeeping of Monte Carlo tree search costs, against mctx in the same run.

`python -m dendrite_jax.benchmarks.mcts --out FILE` times both on a toy environment whose priors and
values are look-ups, so that selection, expansion and backup are all there is. Both are jitted alike
and grow the same trees.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np

from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.harness.counts import CountError
from dendrite_jax.benchmarks.mcts.toy import Toy
from dendrite_jax.search.monte_carlo import Gumbel, Puct, Rule, Uct
from dendrite_jax.search.monte_carlo.config import SimulationConfig
from dendrite_jax.search.tree import ROOT

RULES: dict[str, Rule] = {"puct": Puct(), "uct": Uct(), "gumbel": Gumbel()}
SIZES = ((1, 4, 64), (8, 4, 64), (64, 4, 64), (64, 16, 64), (64, 4, 200))
"""Problems, children of a node, simulations."""
REPEATS = 15


def run(sizes: tuple[tuple[int, int, int], ...] = SIZES) -> dict[str, Any]:
    """Times a search of each size with each rule."""
    rows = [_row(name, *size) for size in sizes for name in RULES]
    return {
        "benchmark": "mcts",
        "environment": harness.environment(),
        "rows": rows,
        "summary": {
            "worst_ratio": max(row["ratio"] for row in rows),
            "median_ratio": float(np.median([row["ratio"] for row in rows])),
        },
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    title = "tree search without a model: µs a simulation of the whole batch, ours over mctx's"
    harness.print_table(title, result["rows"])
    harness.print_table("summary", [result["summary"]])


def _row(name: str, problems: int, children: int, simulations: int) -> dict[str, Any]:
    toy, key, rule = Toy.random(problems, children), jax.random.key(0), RULES[name]
    config = SimulationConfig(num_simulations=simulations, num_children=children, rule=rule)
    ours = jax.jit(Toy.search, static_argnums=2)
    theirs = jax.jit(Toy.mctx_search, static_argnums=(2, 3))
    keys = jax.random.split(key, problems)
    seconds = _in_turns(
        lambda: ours(toy, keys, config), lambda: theirs(toy, key, simulations, rule)
    )
    _check_visits(ours(toy, keys, config).tree.visits, simulations)
    _check_visits(theirs(toy, key, simulations, rule).node_visits, simulations)
    return {
        "rule": name,
        "problems": problems,
        "children": children,
        "simulations": simulations,
        "ours_us": 1e6 * seconds[0] / simulations,
        "mctx_us": 1e6 * seconds[1] / simulations,
        "ratio": seconds[0] / seconds[1],
    }


def _check_visits(visits: jax.Array, simulations: int) -> None:
    """Raises CountError unless every root was visited first, and then by each simulation."""
    roots = np.unique(np.asarray(visits)[:, ROOT])
    if roots.tolist() != [simulations + 1]:
        raise CountError(f"roots have {roots} visits after {simulations} simulations")


def _in_turns(*calls: Callable[[], Any]) -> list[float]:
    """The median seconds of each call, called in turns so that all meet the same machine."""
    seconds = np.zeros((REPEATS, len(calls)))
    for call in calls:
        jax.block_until_ready(call())
    for repeat in range(REPEATS):
        for number, call in enumerate(calls):
            start = time.perf_counter()
            jax.block_until_ready(call())
            seconds[repeat, number] = time.perf_counter() - start
    return np.median(seconds, axis=0).tolist()


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=None, help="Write the JSON here.")
def main(out: Path | None) -> None:
    """Prints the table."""
    result = run()
    show(result)
    if out is not None:
        harness.save(result, out)
