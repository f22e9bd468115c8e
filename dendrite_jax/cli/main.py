"""The `dendrite` command: its subcommands, and errors as one line and exit code 2."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from dendrite_jax.cli.bench import bench
from dendrite_jax.cli.generate import generate
from dendrite_jax.cli.info import info
from dendrite_jax.cli.search import search
from dendrite_jax.cli.solve import solve

CLOSED_PIPE = 141
"""Exit code when stdout's reader has gone: 128 and SIGPIPE's number, as a shell tells it of tools
that the signal ends."""


class ClosedPipeError(Exception):
    """The reader of stdout has gone."""


class Commands(click.Group):
    """A group that tells of a closed pipe, for which click and rich would exit with 1."""

    def make_context(self, *args: Any, **options: Any) -> click.Context:
        with _telling_of_a_closed_pipe():
            return super().make_context(*args, **options)

    def invoke(self, ctx: click.Context) -> Any:
        with _telling_of_a_closed_pipe():
            return super().invoke(ctx)


@contextmanager
def _telling_of_a_closed_pipe() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError as exc:
        raise ClosedPipeError from exc
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # rich's answer
            raise ClosedPipeError from stop
        raise


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dendrite-jax")
def cli() -> None:
    """Search with language models: forks that cost a table row.

    \b
    Examples:
      dendrite solve "4 5 6 10"
      dendrite search --model ./Llama-3.2-1B --prompt "Three facts about owls:"
      dendrite generate --model ./Llama-3.2-1B --prompt "Once upon a time" -n 4
      dendrite bench fork --json
      dendrite info
    """


for command in (solve, search, generate, bench, info):
    cli.add_command(command)


def main() -> None:
    """Runs the command; a bad argument or a known failure is one line on stderr and exit code 2.

    A group without a command prints its help there. When a reader such as `head` has gone, the
    command ends without a word and with `CLOSED_PIPE`. What a stream's encoding lacks is written as
    JSON's escapes, so that an ASCII terminal costs no result.
    """
    _escape_what_streams_lack()
    try:
        try:
            _run()
        finally:
            sys.stdout.flush()  # here, where a closed pipe can be answered
    except (ClosedPipeError, BrokenPipeError):
        # The interpreter flushes once more as it ends, which then fails no more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)


def _run() -> None:
    try:
        cli.main(prog_name="dendrite", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(error.format_message())
    except (ValueError, OSError, RuntimeError) as error:
        _fail(str(error))


def _escape_what_streams_lack() -> None:
    codecs.register_error("json_escapes", _json_escapes)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="json_escapes")


def _json_escapes(error: UnicodeError) -> tuple[str, int]:
    """An error handler of `codecs`: `\\uXXXX` of UTF-16, which means the same within JSON."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass").hex()
    units = (lacking[place : place + 4] for place in range(0, len(lacking), 4))
    return "".join(f"\\u{unit}" for unit in units), error.end


def _fail(message: str) -> None:
    print(f"dendrite: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(2)
