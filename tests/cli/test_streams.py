"""A reader that has gone, and streams that cannot write every character."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from rich.console import Console

from dendrite_jax.cli import main as command
from dendrite_jax.cli.common import print_json, working

COMMAND = [sys.executable, "-c", "from dendrite_jax.cli.main import main; main()"]
TEXT = "é木😀"


def run_with(
    monkeypatch: pytest.MonkeyPatch, body: Callable[[], None], stdout: io.TextIOBase
) -> int:
    """Runs `dendrite try` with such a body; its exit code."""
    group = command.Commands(commands=[click.Command("try", callback=body)])
    monkeypatch.setattr(command, "cli", group)
    monkeypatch.setattr(sys, "argv", ["dendrite", "try"])
    monkeypatch.setattr(sys, "stdout", stdout)
    try:
        command.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def print_much() -> None:
    for _ in range(10_000):
        print("a line, so many that the buffer is written out")


def print_little_and_find_nothing() -> None:
    print("nothing found")
    raise SystemExit(1)


@pytest.mark.parametrize(
    "body",
    [
        lambda: print("kept in the buffer"),
        print_much,
        print_little_and_find_nothing,
        lambda: Console().print("by rich, which flushes"),
        lambda: click.echo("by click, which flushes"),
    ],
    ids=["print", "much", "nothing found", "rich", "click"],
)
def test_a_closed_pipe_is_a_quiet_end(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], body: Callable[[], None]
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stdout:
        code = run_with(monkeypatch, body, stdout)
        # What was buffered goes nowhere: closing flushes it, as the interpreter does at its end.
    assert code == command.CLOSED_PIPE
    assert capfd.readouterr().err == ""


def test_other_ends_keep_their_code(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise ValueError("no")

    out = io.TextIOWrapper(io.BytesIO())
    assert run_with(monkeypatch, print_little_and_find_nothing, out) == 1
    assert run_with(monkeypatch, refuse, out) == 2
    assert run_with(monkeypatch, lambda: None, out) == 0


def test_a_process_ends_quietly_when_its_reader_has_gone() -> None:
    with subprocess.Popen(
        [*COMMAND, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == command.CLOSED_PIPE


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
@pytest.mark.parametrize("errors", ["strict", "surrogateescape"])
def test_an_encoding_that_lacks_characters_loses_nothing(
    monkeypatch: pytest.MonkeyPatch, encoding: str, errors: str
) -> None:
    written = io.BytesIO()
    out = io.TextIOWrapper(written, encoding=encoding, errors=errors)

    def body() -> None:
        print_json({"text": TEXT})
        Console().print(TEXT, soft_wrap=True)

    assert run_with(monkeypatch, body, out) == 0
    first, second = written.getvalue().decode(encoding).splitlines()
    assert json.loads(first) == {"text": TEXT}
    assert json.loads(f'"{second}"') == TEXT
    assert (TEXT in second) == (encoding == "utf-8")


def test_without_a_terminal_a_line_says_what_takes_long(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with (tmp_path / "err").open("w") as file:
        for quiet in (False, True):
            with working(Console(file=file), "compiling", quiet):
                print("body")
    assert capfd.readouterr() == ("body\nbody\n", "dendrite: compiling\n")
