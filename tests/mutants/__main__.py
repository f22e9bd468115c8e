"""Applies every mutation to a copy of the tree and demands that a test it names fails.

`python -m mutants WORD ...` takes only the mutants whose names or files have one of the words.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from mutants.mutant import Mutant
from mutants.table import MUTANTS
from mutants.verdicts import PROFILE, TREE, VERDICTS
from source_tree import FOLDERS, ROOT

WORKERS = 2
LIMIT = 300
"""Seconds that the tests of a mutant may take; beyond, it counts as survived."""
COPIED = ("dendrite_jax", "kernels", "benchmarks", "examples", "tests", "pyproject.toml")


class Run:
    """What came of a run of pytest."""

    def __init__(
        self, code: int | None, output: str, failures: list[dict[str, str]], seconds: float
    ) -> None:
        self.code, self.output, self.seconds = code, output, seconds
        self.failures = failures

    @property
    def verdict(self) -> str:
        """`caught` where a test failed by an assertion, or else what went wrong."""
        if self.code is None:
            return f"SURVIVED: its tests ran for over {LIMIT} s"
        if self.code == 0:
            return "SURVIVED: its tests pass"
        if self.code == 1 and any(failure["asserts"] for failure in self.failures):
            return "caught"
        errors = sorted({failure["error"] for failure in self.failures})
        return f"BROKEN: no assertion fails; pytest ends with {self.code} {' '.join(errors)}"


class Copy:
    """A copy of the tree in which tests run."""

    def __init__(self, root: Path) -> None:
        """Makes the folder, which does not exist yet."""
        self.root = root
        root.mkdir()
        for name in COPIED:
            source, ignored = ROOT / name, shutil.ignore_patterns("__pycache__")
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=ignored)
            else:
                shutil.copy(source, root / name)
        self._farm = root / "build" / "farm"
        package = self._farm / "dendrite_jax"
        package.mkdir(parents=True)
        # The package is found here before the installed one: its folders stand in several places.
        places = [*(root / "dendrite_jax").iterdir()]
        places += [root / path.relative_to(ROOT) for path in FOLDERS.values()]
        for place in places:
            if place.name != "dendrite_jax":
                (package / place.name).symlink_to(place)

    def pytest(self, tests: Sequence[str], *more: str, limit: float | None = None) -> Run:
        """Runs tests by their ids below `tests/`."""
        verdicts = self.root / "build" / "verdicts"
        verdicts.write_text("")
        command = [sys.executable, "-P", "-m", "pytest", "-q", "-p", "mutants.verdicts", *more]
        command += ["-p", "no:cacheprovider", f"--hypothesis-profile={PROFILE}"]
        command += [f"tests/{test}" for test in tests]
        start = time.monotonic()
        try:
            done = subprocess.run(
                command,
                cwd=self.root,
                env=self._environment(verdicts),
                capture_output=True,
                text=True,
                timeout=limit,
            )
            code, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired:
            code, output = None, ""
        failures = [json.loads(line) for line in verdicts.read_text().splitlines()]
        return Run(code, output, failures, time.monotonic() - start)

    def _environment(self, verdicts: Path) -> dict[str, str]:
        compiled = ROOT / ".pytest_cache" / "d" / "xla"  # where `make test` keeps it too
        return {
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(self._farm), str(self.root / "tests")]),
            TREE: str(self.root),
            VERDICTS: str(verdicts),
        }

    def mutated(self, mutant: Mutant) -> Run:
        """Runs the tests of a mutant on the copy with that mutation, and undoes it."""
        path = self.root / mutant.file
        source, mutation = path.read_text(), mutant.applied(self.root)
        try:
            self._write(path, mutation)
            return self.pytest(mutant.tests, "-x", limit=LIMIT)
        finally:
            self._write(path, source)

    @staticmethod
    def _write(path: Path, source: str) -> None:
        path.write_text(source)
        # A line of the same length within the same second would leave the old bytecode in force.
        for bytecode in (path.parent / "__pycache__").glob(f"{path.stem}.*"):
            bytecode.unlink()


def main(words: Sequence[str]) -> int:
    """Tests the mutants that the words name, or all; the exit code."""
    start = time.monotonic()
    chosen = [m for m in MUTANTS if not words or any(w in f"{m.name} {m.file}" for w in words)]
    for mutant in chosen:
        mutant.applied(ROOT)
    with tempfile.TemporaryDirectory(prefix="dendrite-mutants-") as folder:
        copies: SimpleQueue[Copy] = SimpleQueue()
        for number in range(WORKERS):
            copies.put(Copy(Path(folder) / str(number)))
        whole = copies.get()
        if not _all_pass(whole, chosen):
            return 1
        copies.put(whole)

        def test(mutant: Mutant) -> str:
            copy = copies.get()
            run = copy.mutated(mutant)
            copies.put(copy)
            print(
                f"{run.seconds:5.0f} s  {run.verdict:8}  {mutant.file}: {mutant.name}", flush=True
            )
            if run.verdict != "caught":
                print(run.output[-4000:], flush=True)
            return run.verdict

        with ThreadPoolExecutor(WORKERS) as pool:
            verdicts = list(pool.map(test, chosen))
    caught = verdicts.count("caught")
    print(f"{caught} of {len(chosen)} mutants caught in {time.monotonic() - start:.0f} s")
    return int(caught < len(chosen))


def _all_pass(copy: Copy, mutants: Sequence[Mutant]) -> bool:
    """Whether the tests of all mutants pass without any."""
    tests = sorted({test for mutant in mutants for test in mutant.tests})
    run = copy.pytest(tests, "--numprocesses", str(WORKERS), "--dist", "loadfile")
    if run.code == 0:
        print(f"{run.seconds:5.0f} s  {len(tests)} tests pass without a mutation", flush=True)
        return True
    print(run.output[-8000:])
    print("tests fail without any mutation")
    return False


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
