"""Help, and bad arguments: one line on stderr and exit code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax
import pytest

from cli.conftest import Dendrite
from dendrite_jax.cli.common import METHODS, SIZES
from dendrite_jax.cli.main import cli
from dendrite_jax.search import registry

COMMANDS = [[], *([name] for name in cli.commands)]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_shows_examples_that_begin_with_the_command(
    dendrite: Dendrite, command: list[str], flag: str
) -> None:
    ran = dendrite(*command, flag)
    assert ran.code == 0
    assert ran.err == ""
    called = " ".join(["dendrite", *command])
    assert ran.out.startswith(f"Usage: {called} ")
    examples = ran.out.split("Examples:\n")[1].split("\n\n")[0].rstrip().splitlines()
    assert examples
    assert all(f"{line.strip()} ".startswith(f"{called} ") for line in examples)


@pytest.mark.parametrize("command", [[], ["bench"]], ids=" ".join)
def test_a_group_without_a_command_prints_its_help(dendrite: Dendrite, command: list[str]) -> None:
    ran = dendrite(*command)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("Usage: ")
    assert len(ran.err.splitlines()) > 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["solve"], "PUZZLE"),
        (["solve", "4 5 6"], "3 numbers given, 4 needed"),
        (["solve", ""], "0 numbers given, 4 needed"),
        (["solve", "4 5 6 7 8"], "5 numbers given, 4 needed"),
        (["solve", "4 5 6 x"], "'x' is not a whole number"),
        (["solve", "4 5 6 14"], "14 is not between 1 and 13"),
        (["solve", "4 5 6 0"], "0 is not between 1 and 13"),
        (["solve", "4 5 6 10", "--target", "0"], "target: 0 is not between 1 and 100"),
        (["solve", "4 5 6 10", "--target", "101"], "target: 101 is not between 1 and 100"),
        (["solve", "4 5 6 10", "--target", "x"], "'x' is not a valid integer"),
        (["solve", "4 5 6 10", "--breadth", "0"], "breadth is 0; it must be at least 1"),
        (["solve", "4 5 6 10", "--proposals", "4"], "proposals is 4; .* the breadth, 5"),
        (["solve", "4 5 6 10", "--seed", "4294967296"], "4294967296 is not in the range"),
        (["solve", "4 5 6 10", "--seed", "-1"], "-1 is not in the range"),
        (["solve", "4 5 6 10", "--method", "guess"], "'--method': 'guess' is not"),
        (["solve", "4 5 6 10", "--html", "no/t.html"], "folder no does not exist"),
        (["solve", "4 5 6 10", "--bredth", "3"], "No such option.*--bredth"),
        (["bench", "tree", "--out", "."], "File '.' is a directory"),
        (["guess"], "No such command 'guess'"),
        (["generate", "--prompt", "x"], "Missing option '--model'"),
        (["generate", "--model", "nowhere", "--prompt", "x"], "nowhere: neither a folder nor"),
        (["generate", "--model", "", "--prompt", "x"], "model is ''; it must be a folder or a hub"),
        (["search", "--model", " ", "--prompt", "x"], "model is ' '; it must be a folder or a hub"),
        (["generate", "--model", "x", "--prompt", "x", "-n", "0"], "-n is 0; .*at least 1"),
        (["generate", "--model", "x", "--prompt", "x", "--dtype", "int8"], "'int8' is not one of"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_arguments_are_one_line_and_exit_code_2(
    dendrite: Dendrite, arguments: list[str], message: str
) -> None:
    ran = dendrite(*arguments)
    assert ran.code == 2
    assert ran.out == ""
    (line,) = ran.err.splitlines()
    assert line.startswith("dendrite: ")
    assert re.search(message, line)


def test_the_methods_offered_are_those_of_the_table() -> None:
    assert METHODS == (*registry.SEARCHES, *registry.ALIASES)
    assert set(SIZES) == {size for name in METHODS for size in registry.sizes_of(name)}


def test_a_folder_without_a_model_is_named(dendrite: Dendrite, tmp_path: Path) -> None:
    ran = dendrite("generate", "--model", str(tmp_path), "--prompt", "x")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"dendrite: {tmp_path}: the folder has no config.json\n"


def test_info_says_what_there_is(dendrite: Dendrite) -> None:
    ran = dendrite("info", "--json")
    assert (ran.code, ran.err) == (0, "")
    facts = json.loads(ran.out)
    assert facts["packages"]["jax"] == jax.__version__
    assert [device["platform"] for device in facts["devices"]] == [
        device.platform for device in jax.devices()
    ]
    assert all(device["free_bytes"] > 0 for device in facts["devices"])
    assert facts["compilation_cache"] is None  # turned off by the fixture
    assert facts["command"] == "dendrite info"
    assert facts["options"] == {"as_json": True}

    shown = dendrite("info")
    assert shown.code == 0
    for name, version in facts["packages"].items():
        assert f"{name}: {version}" in shown.out
