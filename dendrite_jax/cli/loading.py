"""A bar while the weights of a checkpoint are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn


@contextmanager
def loading_bar(console: Console, quiet: bool) -> Iterator[Callable[[int, int], None]]:
    """Gives what `models.load` calls with its progress; draws nothing when quiet."""
    columns = (TextColumn("loading weights"), BarColumn(), DownloadColumn())
    hidden = quiet or not console.is_terminal
    with Progress(*columns, console=console, disable=hidden, transient=True) as bar:
        task = bar.add_task("weights", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
