"""A pytest plugin that writes down how tests failed; the runner loads it.

It stops a run whose package is not the copy's, and keeps Hypothesis from shrinking what it finds.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

TREE = "DENDRITE_MUTANTS_TREE"
"""Names the variable with the root of the copy that is tested."""
VERDICTS = "DENDRITE_MUTANTS_VERDICTS"
"""Names the variable with the file that gets a line of JSON for each failure."""
PROFILE = "mutants"

settings.register_profile(
    PROFILE,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)


def pytest_configure() -> None:
    """Refuses to test another tree than the copy."""
    for package in ("dendrite_jax.cache", "dendrite_jax.kernels"):
        spec = importlib.util.find_spec(package)
        origin = Path(spec.origin if spec and spec.origin else "/").resolve()
        if not origin.is_relative_to(Path(os.environ[TREE]).resolve()):
            pytest.exit(f"{package} is {origin}, which is not in the copy", returncode=4)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Writes a line for each failure."""
    report: Any = yield
    if call.excinfo is not None and report.failed:
        kind = call.excinfo.type
        line = {
            "test": item.nodeid,
            "error": kind.__name__,
            "asserts": issubclass(kind, (AssertionError, pytest.fail.Exception)),
        }
        with open(os.environ[VERDICTS], "a") as file:
            file.write(json.dumps(line) + "\n")
    return report
