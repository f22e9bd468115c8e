"""The table of mutants does not rot: each still applies, and the tests it names exist."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from mutants.mutant import Mutant, MutantError
from mutants.table import MUTANTS
from source_tree import ROOT

TESTS = ROOT / "tests"


@cache
def functions(path: Path) -> dict[str, list[str]]:
    """The functions of a file by class, those outside classes under ""."""
    tree = ast.parse(path.read_text())
    found = {"": [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]}
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = [f.name for f in node.body if isinstance(f, ast.FunctionDef)]
    return found


def ids_in(path: Path) -> Iterator[str]:
    """The ids of a file's tests; a class of a suite has that of the suites beside it too."""
    inherited = [
        name
        for suite in path.parent.glob("*_suite.py")
        for names in functions(suite).values()
        for name in names
    ]
    for group, names in functions(path).items():
        yield from names if not group else (f"{group}::{name}" for name in [*names, *inherited])


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert len(MUTANTS) >= 40
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_applies_and_its_tests_exist(mutant: Mutant) -> None:
    mutant.applied(ROOT)
    assert mutant.tests
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert name.partition("[")[0] in ids_in(TESTS / file)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("gone", "kept", "'gone' is 0 times in source.py"),
        ("x", "y", "'x' is 2 times in source.py"),
        ("= 1", "= =", "invalid syntax"),
        ("x = 1", "x  = 1", "means what the old one does"),
        ("1\n", "2\n", "must be parts of one line"),
    ],
)
def test_a_mutation_that_cannot_be_made_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    (tmp_path / "source.py").write_text("x = 1\nz = x\n")
    with pytest.raises(MutantError, match=message):
        Mutant("broken", "source.py", old, new, ()).applied(tmp_path)
