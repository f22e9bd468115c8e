"""Options and output that several subcommands share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType
from rich.live import Live

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
model_option = click.option("--model", required=True, help="A Hugging Face model folder or hub id.")
dtype_option = click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default=None,
    help="Of weights and cache; the checkpoint's own by default.",
)
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of all sampling.",
)

METHODS = (
    "greedy",
    "sample",
    "best_of_n",
    "beam_search",
    "step_beam",
    "dvts",
    "rebase",
    "tree_of_thoughts",
    "depth_first",
    "mcts",
    "best-of-n",
    "beam",
    "tot-bfs",
    "tot-dfs",
)
"""Names of `registry.SEARCHES`, then of its aliases; here too so that `--help` imports no jax."""
SIZES = {
    "breadth": "Thoughts kept at each level (dvts: subtrees): step_beam, dvts, tree_of_thoughts.",
    "proposals": "Thoughts sampled at each level, or for each thought that is expanded: "
    "depth_first, mcts. Paths: sample, best_of_n.",
    "expansions": "Thoughts expanded, at most: depth_first, mcts.",
    "simulations": "Walks from the root, at most: mcts.",
    "width": "Beams: beam_search.",
    "tokens": "Tokens of a beam, at most: beam_search.",
}
"""The sizes that a method may have, and what they are."""


def _above_zero(_context: click.Context, _option: click.Parameter, seconds: float | None) -> Any:
    """Refuses a limit that is not positive."""
    if seconds is not None and not seconds > 0:
        raise click.BadParameter(f"{seconds} is not above 0 seconds")
    return seconds


time_limit_option = click.option(
    "--time-limit",
    type=float,
    default=None,
    metavar="SECONDS",
    callback=_above_zero,
    help="End the search after so long, compiling not counted, with the best so far; so does "
    "Ctrl-C.",
)


def _in_a_folder(_context: click.Context, _option: click.Parameter, path: Path | None) -> Any:
    """Refuses a file in a folder that is not there, before a long search would."""
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"folder {path.parent} does not exist")
    return path


html_option = click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    callback=_in_a_folder,
    help="Write a page that draws the tree.",
)


def method_options(command: F) -> F:
    """Adds --method and an option for each size; the command gets `method` and `sizes`."""

    @functools.wraps(command)
    def gathered(**options: Any) -> Any:
        given = {name: options.pop(name) for name in SIZES}
        sizes = {name: size for name, size in given.items() if size is not None}
        return command(sizes=sizes, **options)

    decorated: Any = gathered
    for name, text in reversed(SIZES.items()):
        decorated = click.option(f"--{name}", type=int, default=None, help=text)(decorated)
    choice = click.Choice(METHODS)
    return click.option(
        "--method", type=choice, default="tree_of_thoughts", show_default=True, help="The search."
    )(decorated)


def compile_cache_option(command: F) -> F:
    """Adds --no-compile-cache, and otherwise turns the persistent compilation cache on."""

    def apply(_context: click.Context, _option: click.Parameter, off: bool) -> None:
        if not off:
            from dendrite_jax.serving.compilation import enable_compilation_cache

            enable_compilation_cache()

    return click.option(
        "--no-compile-cache",
        is_flag=True,
        expose_value=False,
        callback=apply,
        help="Compile afresh, and keep nothing on disk.",
    )(command)


def print_json(value: Any) -> None:
    """One JSON object on stdout."""
    print(json.dumps(value, ensure_ascii=False))


@contextmanager
def working(console: Console, text: str, quiet: bool) -> Iterator[None]:
    """A spinner beside a text while the body runs, without a terminal a line on stderr."""
    if quiet or not console.is_terminal:
        if not quiet:
            click.echo(f"dendrite: {text}", err=True)
        yield
        return
    with console.status(text):
        yield


@contextmanager
def drawing(console: Console, quiet: bool) -> Iterator[Callable[[RenderableType], None]]:
    """A function that draws over what it drew last; off a terminal the last is printed at the end.

    Nothing is drawn when quiet.
    """
    if quiet:
        yield lambda _: None
        return
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            yield lambda drawn: live.update(drawn, refresh=True)
        return
    last: list[RenderableType] = []
    yield lambda drawn: last.__setitem__(slice(None), [drawn])
    for drawn in last:
        console.print(drawn, soft_wrap=True)


def draw_each(console: Console, drawings: Iterable[RenderableType]) -> None:
    """Draws each over the last; off a terminal prints the last one."""
    with drawing(console, quiet=False) as draw:
        for drawn in drawings:
            draw(drawn)
