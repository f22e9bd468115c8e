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

METHODS = ("greedy", "sample", "best-of-n", "beam", "tot-bfs", "tot-dfs", "mcts")
"""Names of `search.METHODS`, here too so that `--help` need not import jax."""
SIZES = {
    "breadth": "Thoughts kept at each level: beam, tot-bfs.",
    "proposals": "Thoughts sampled at each level (paths: best-of-n), or for each thought that is "
    "expanded: tot-dfs, mcts.",
    "expansions": "Thoughts expanded, at most: tot-dfs, mcts.",
    "simulations": "Walks from the root, at most: mcts.",
}
"""The sizes that a method may have, and what they are."""


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
        "--method", type=choice, default="tot-bfs", show_default=True, help="The search."
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


def draw_each(console: Console, drawings: Iterable[RenderableType]) -> None:
    """Draws each over the last on a terminal; elsewhere prints the last one, unwrapped."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
            for drawing in drawings:
                live.update(drawing, refresh=True)
        return
    *_, last = drawings
    console.print(last, soft_wrap=True)
