"""`dendrite solve`: a Game-of-24 puzzle by any search with the embedded model."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from dendrite_jax.cli.common import (
    compile_cache_option,
    drawing,
    html_option,
    json_option,
    method_options,
    print_json,
    seed_option,
    time_limit_option,
    working,
)

if TYPE_CHECKING:
    from dendrite_jax.tasks.game24.solutions import Snapshot
    from dendrite_jax.tasks.game24.solve import Game24Search


@click.command()
@click.argument("puzzle")
@click.option("--target", default=24, show_default=True, help="The number to make, 1 to 100.")
@method_options
@time_limit_option
@seed_option
@json_option
@html_option
@compile_cache_option
def solve(
    puzzle: str,
    target: int,
    method: str,
    sizes: dict[str, int],
    time_limit: float | None,
    seed: int,
    as_json: bool,
    html: Path | None,
) -> None:
    """Make a target from four numbers, each used once, by tree of thoughts or another search.

    The embedded model proposes steps and says whether each can still reach the target; the search
    keeps the best. It is a small model trained for this task. Exits with 1 if nothing was found.
    Ctrl-C ends the search and keeps the best so far.

    \b
    Examples:
      dendrite solve "4 5 6 10"
      dendrite solve "3 3 8 8" --breadth 10 --proposals 80
      dendrite solve "1 2 7 7" --target 37 --json
      dendrite solve "4 5 6 10" --html tree.html
    """
    started = time.perf_counter()
    from dendrite_jax.tasks.game24.game.rules import check_target, parse_puzzle

    numbers = parse_puzzle(puzzle)
    check_target(target)
    console = Console(stderr=as_json)
    with working(console, "loading the model", quiet=as_json or not console.is_terminal):
        from dendrite_jax.tasks.game24.solve import Game24Search, load_solver

        search = Game24Search(*load_solver(), method=method, sizes=sizes)
    with working(console, "compiling (once; kept for the next run)", quiet=as_json):
        search.compile()
    snapshot = _search(search, numbers, target, seed, time_limit, console, quiet=as_json)
    if html is not None:
        _write_page(html, snapshot, search)
    summary = _summary(snapshot, search, time.perf_counter() - started)
    if as_json:
        print_json(summary)
    else:
        _print_summary(console, summary)
    if summary["expression"] is None:
        raise SystemExit(1)


def _search(
    search: Game24Search,
    numbers: tuple[int, ...],
    target: int,
    seed: int,
    time_limit: float | None,
    console: Console,
    quiet: bool,
) -> Snapshot:
    """Runs the search, drawing the tree after each part of it."""
    from dendrite_jax.search.export import to_rich

    with drawing(console, quiet) as draw:

        def watch(snapshot: Snapshot) -> None:
            drawn = to_rich(
                snapshot.result,
                decode=search.tokenizer.decode,
                title=snapshot.title,
                show_value=lambda value: f"{math.exp(value):.3f}",  # how sure the model is
            )
            draw(drawn)

        shown = None if quiet else watch
        return search.search([numbers], target, seed, watch=shown, time_limit=time_limit)


def _write_page(path: Path, snapshot: Snapshot, search: Game24Search) -> None:
    from dendrite_jax.search.export import to_html

    page = to_html(snapshot.result, decode=search.tokenizer.decode, title=snapshot.title)
    path.write_text(page, encoding="utf-8")


def _summary(snapshot: Snapshot, search: Game24Search, seconds: float) -> dict[str, Any]:
    from dendrite_jax.search import explain
    from dendrite_jax.tasks.game24.solve import PROMPT_TOKENS

    results = search.judge(snapshot)
    solution = results.solutions[0]
    right = next((answer for answer in solution.answers if answer.solved), None)
    ledger = results.ledger
    return {
        "puzzle": list(solution.puzzle),
        "target": solution.target,
        "expression": right.expression if right else None,
        "steps": list(right.lines) if right else [],
        "answers": [asdict(answer) for answer in solution.answers],
        "reason": explain(snapshot.result) or None,
        "cut": bool(snapshot.result.cut[0]),
        "nodes": solution.nodes,
        "legal_nodes": solution.legal_nodes,
        "forks": ledger["forks"],
        "microseconds_per_fork": search.fork_microseconds(),
        "tokens_prefilled": ledger["prefilled"] + PROMPT_TOKENS,
        "tokens_generated": ledger["generated"],
        "tokens_not_recomputed": ledger["reused"],
        "seconds": seconds,
    }


def _print_summary(console: Console, summary: dict[str, Any]) -> None:
    if summary["expression"] is None:
        console.print(f"[bold red]no expression found that makes {summary['target']}[/]")
        if not summary["answers"]:
            console.print(summary["reason"], soft_wrap=True)
    else:
        console.print(f"[bold green]{summary['expression']} = {summary['target']}[/]")
    console.print(
        f"{summary['nodes']} nodes ({summary['legal_nodes']} legal), {summary['forks']} forks at "
        f"{summary['microseconds_per_fork']:.1f} µs each, "
        f"{summary['tokens_prefilled'] + summary['tokens_generated']} tokens computed, "
        f"{summary['tokens_not_recomputed']} not recomputed thanks to forks, "
        f"{summary['seconds']:.1f} s" + ("; cut before its end" if summary["cut"] else "")
    )
