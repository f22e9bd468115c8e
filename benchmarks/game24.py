"""Game of 24 on the strict hold-out: greedy, tree of thoughts, and the random-value control.

`python -m dendrite_jax.benchmarks.game24 --out FILE` scores the 100 test puzzles of Yao et al.
(2023). The embedded model is trained for this task, so its figures say nothing beside theirs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax import engine
from dendrite_jax.benchmarks import harness
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import GREEDY, NO_TOKEN, GenerateConfig, StopRules
from dendrite_jax.models import Pretrained
from dendrite_jax.search import RandomValues
from dendrite_jax.tasks.game24 import vocabulary as vocab
from dendrite_jax.tasks.game24.graph import load_test_puzzles
from dendrite_jax.tasks.game24.rules import as_state, format_prompt, judge
from dendrite_jax.tasks.game24.scoring import Game24Scorer
from dendrite_jax.tasks.game24.solve import Game24Search, load_solver

BREADTHS = (5, 25)
PROPOSALS_PER_KEPT = 8
FEWEST_PROPOSALS = 40
BATCH = 20
"""Puzzles searched at once; bounds the cache, not the result of a puzzle."""


def run(target: int = 24, seed: int = 0) -> dict[str, Any]:
    """Scores every method on the test puzzles; each row gives rates over the puzzles."""
    puzzles = [tuple(map(int, puzzle)) for puzzle in load_test_puzzles()]
    pretrained = load_solver()
    rows = [_greedy_row(pretrained, puzzles, target)]
    for breadth in BREADTHS:
        rows.append(_tree_row(pretrained, puzzles, target, seed, breadth, random=False))
        rows.append(_tree_row(pretrained, puzzles, target, seed, breadth, random=True))
    return {
        "benchmark": "game24",
        "environment": harness.environment(),
        "target": target,
        "seed": seed,
        "puzzles": len(puzzles),
        "rules_reject_illegal_lines": True,
        "rows": rows,
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    title = f"Game of 24, {result['puzzles']} held-out puzzles, target {result['target']}"
    harness.print_table(title, result["rows"])


def _greedy_row(
    pretrained: Pretrained, puzzles: Sequence[tuple[int, ...]], target: int
) -> dict[str, Any]:
    """One greedy transcript a puzzle, no rules and no search."""
    model, tokenizer = pretrained
    start = time.perf_counter()
    texts = [format_prompt(as_state(puzzle), target) for puzzle in puzzles]
    prompts = jnp.array([[vocab.BOS, *tokenizer.encode(text)] for text in texts])
    lanes = len(puzzles)
    state = engine.init(model, CacheConfig(5 * lanes, lanes, 80))
    state, roots = engine.open_branches(state, jax.random.split(jax.random.key(0), lanes))
    counts = jnp.full(lanes, prompts.shape[1])
    state, _ = jax.jit(engine.prefill)(model, state, roots, prompts, counts)
    generate = jax.jit(engine.generate, static_argnames="config")
    stop = StopRules.of([vocab.EOS])
    state, out = generate(
        model, state, roots, config=GenerateConfig(64), sampling=GREEDY, stop=stop
    )
    solved = [
        judge(puzzle, target, _step_lines(tokenizer.decode(row[row != NO_TOKEN].tolist())))
        for puzzle, row in zip(puzzles, np.asarray(out.tokens), strict=True)
    ]
    rate = float(np.mean(solved))
    return _row("greedy", rate, rate, None, state.cache.ledger.totals(), lanes, start)


def _tree_row(
    pretrained: Pretrained,
    puzzles: Sequence[tuple[int, ...]],
    target: int,
    seed: int,
    breadth: int,
    *,
    random: bool,
) -> dict[str, Any]:
    start = time.perf_counter()
    scorer = Game24Scorer()
    proposals = max(FEWEST_PROPOSALS, PROPOSALS_PER_KEPT * breadth)
    search = Game24Search(
        *pretrained,
        sizes={"breadth": breadth, "proposals": proposals},
        score=RandomValues(scorer) if random else scorer,
    )
    batches = [puzzles[first : first + BATCH] for first in range(0, len(puzzles), BATCH)]
    results = [search.solve_batch(batch, target, seed + i) for i, batch in enumerate(batches)]
    sizes = [len(batch) for batch in batches]

    def mean(values: list[float]) -> float:
        return float(np.average(values, weights=sizes))

    ledger = {name: sum(result.ledger[name] for result in results) for name in results[0].ledger}
    name = f"tree of thoughts, b={breadth}" + (", random values" if random else "")
    return _row(
        name,
        mean([result.success_rate for result in results]),
        mean([result.any_success_rate for result in results]),
        mean([result.legality for result in results]),
        ledger,
        len(puzzles),
        start,
    )


def _row(
    method: str,
    best: float,
    any_kept: float,
    legality: float | None,
    ledger: dict[str, int],
    puzzles: int,
    start: float,
) -> dict[str, Any]:
    return {
        "method": method,
        "best_answer_right": best,
        "any_kept_right": any_kept,
        "step_legality": legality,
        "tokens_per_puzzle": ledger["generated"] / puzzles,
        "reused_per_puzzle": ledger["reused"] / puzzles,
        "forks_per_puzzle": ledger["forks"] / puzzles,
        "seconds": time.perf_counter() - start,
    }


def _step_lines(text: str) -> list[str]:
    """The steps of a transcript, each up to its `)`, without the verdict."""
    return [line[: line.rfind(")") + 1] for line in text.strip("\n").split("\n")]


@click.command()
@click.option("--target", default=24, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(target: int, seed: int, out: Path) -> None:
    """Scores the test puzzles and writes the result."""
    result = run(target, seed)
    harness.save(result, out)
    show(result)


if __name__ == "__main__":
    main()
