"""`dendrite solve`: a Game-of-24 puzzle by any search with the embedded model."""

from __future__ import annotations

import math
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
from dendrite_jax.cli.provenance import Stopwatch, provenance, stopwatch

if TYPE_CHECKING:
    from dendrite_jax.tasks.game24.solutions import Answer, Snapshot
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
    keeps the best by that. It is a small model trained for this task. Of what the tree then holds,
    exact arithmetic picks the answers: the expressions that are right, each once. Exits with 1 if
    there is none. Ctrl-C ends the search and keeps the best so far.

    \b
    Examples:
      dendrite solve "4 5 6 10"
      dendrite solve "3 3 8 8" --breadth 10 --proposals 80
      dendrite solve "1 2 7 7" --target 37 --json
      dendrite solve "4 5 6 10" --html tree.html
    """
    from dendrite_jax.tasks.game24.game.rules import check_target, parse_puzzle

    numbers = parse_puzzle(puzzle)
    check_target(target)
    console = Console(stderr=as_json)
    with stopwatch() as watch:
        with working(console, "loading the model", quiet=as_json or not console.is_terminal):
            from dendrite_jax.tasks.game24.solve import Game24Search, load_solver

            search = Game24Search(*load_solver(), method=method, sizes=sizes)
        with working(console, "compiling (once; kept for the next run)", quiet=as_json):
            search.compile()
        snapshot = _search(search, numbers, target, seed, time_limit, console, quiet=as_json)
    summary = _summary(snapshot, search)
    about = _about(method, sizes, seed, watch)
    if html is not None:
        _write_page(html, snapshot, search, about)
    if as_json:
        print_json(summary | about)
    else:
        _print_summary(console, summary | about)
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
                judged=search.judge(snapshot).solutions[0].judged,
                show_value=lambda value: f"{math.exp(value):.3f}",  # how sure the model is
            )
            draw(drawn)

        shown = None if quiet else watch
        return search.search([numbers], target, seed, watch=shown, time_limit=time_limit)


def _about(method: str, sizes: dict[str, int], seed: int, watch: Stopwatch) -> dict[str, Any]:
    """What it takes to run this again, and the seconds it took."""
    from dendrite_jax.search.registry import sizes_of
    from dendrite_jax.tasks.game24.solve import embedded_model

    return {
        "method": method,
        "sizes": sizes_of(method) | sizes,
        "seed": seed,
        "model": embedded_model(),
        **watch.seconds(),
        **provenance(),
    }


def _write_page(
    path: Path, snapshot: Snapshot, search: Game24Search, about: dict[str, Any]
) -> None:
    from dendrite_jax.search.export import to_html

    page = to_html(
        snapshot.result,
        decode=search.tokenizer.decode,
        title=snapshot.title,
        judged=search.judge(snapshot).solutions[0].judged,
        about=about,
    )
    path.write_text(page, encoding="utf-8")


def _summary(snapshot: Snapshot, search: Game24Search) -> dict[str, Any]:
    """What was found, as JSON values.

    `answers` are right, one an expression; `ends` are what the search ended on, right or wrong, as
    the model ranks it.
    """
    from dendrite_jax.tasks.game24.solve import PROMPT_TOKENS

    results = search.judge(snapshot)
    solution = results.solutions[0]
    best = solution.right[0] if solution.right else None
    ledger = results.ledger
    return {
        "puzzle": list(solution.puzzle),
        "target": solution.target,
        "expression": best.expression if best else None,
        "steps": list(best.lines) if best else [],
        "answers": [_answer(answer) for answer in solution.right],
        "ends": [_answer(answer) for answer in solution.answers],
        "reason": solution.reason or None,
        "cut": bool(snapshot.result.cut[0]),
        "nodes": solution.nodes,
        "legal_nodes": solution.legal_nodes,
        "forks": ledger["forks"],
        "tokens_prefilled": ledger["prefilled"] + PROMPT_TOKENS,
        "tokens_generated": ledger["generated"],
        "tokens_not_recomputed": ledger["reused"],
    }


def _answer(answer: Answer) -> dict[str, Any]:
    from dendrite_jax.search.export.json_document import number

    return {**asdict(answer), "value": number(answer.value)}


def _print_summary(console: Console, summary: dict[str, Any]) -> None:
    if summary["expression"] is None:
        console.print(f"[bold red]no expression found that makes {summary['target']}[/]")
        console.print(summary["reason"], soft_wrap=True)
    for answer in summary["answers"]:
        style = "bold green" if answer is summary["answers"][0] else "green"
        console.print(f"[{style}]{answer['expression']} = {summary['target']}[/]")
    console.print(
        f"{summary['nodes']} nodes ({summary['legal_nodes']} legal), {summary['forks']} forks, "
        f"{summary['tokens_prefilled'] + summary['tokens_generated']} tokens computed, "
        f"{summary['tokens_not_recomputed']} not recomputed thanks to forks, "
        f"{summary['seconds']:.1f} s ({summary['seconds_without_compilation']:.1f} s without "
        "compilation)" + ("; cut before its end" if summary["cut"] else "")
    )
