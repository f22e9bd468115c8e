"""Running the command in this process, as the console script does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from dendrite_jax.cli.main import main
from models.tiny_checkpoint import write_checkpoint


class Ran(NamedTuple):
    """What a run of the command left."""

    code: int
    out: str
    err: str


Dendrite = Callable[..., Ran]


@pytest.fixture
def dendrite(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Dendrite:
    """`dendrite("solve", "4 5 6 10")`; nothing is kept in the user's compilation cache."""
    monkeypatch.setenv("DENDRITE_COMPILATION_CACHE", "")

    def run(*arguments: str) -> Ran:
        monkeypatch.setattr(sys, "argv", ["dendrite", *arguments])
        code = 0
        capfd.readouterr()
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Ran(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder)
    return str(folder)
