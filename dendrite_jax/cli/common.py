"""Options and output that several subcommands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from rich.console import Console, RenderableType
from rich.live import Live

F = TypeVar("F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
seed_option = click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Seed of all sampling.",
)


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
    """A spinner beside a text while the body runs; nothing when quiet or not on a terminal."""
    if quiet or not console.is_terminal:
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
