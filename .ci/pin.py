"""Writes constraints.txt: the exact version of every package of every extra, on each Python.

    python3 .ci/pin.py python3.11 python3.12 python3.13

Each interpreter's pip resolves the extras in an empty environment without installing them. A
package that resolves differently gets one line for each version, with an environment marker.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Exact versions for pip install --constraint; written by .ci/pin.py.\n"
# The published figures are measured with jax 0.11.2; Python 3.11 gets no later one than 0.10.2.
HELD = ["jax<=0.11.2"]
WANTED = ["pip", "setuptools", f"{ROOT}[test,cuda12,cuda13]"]
# The oracle runs on Python 3.11 only; a CPU build of torch brings no CUDA packages of its own.
ORACLE_PYTHON = "3.11"
ORACLE = ["torch==2.13.0+cpu", f"{ROOT}[bench,oracle]"]


def resolve(python: Path, wanted: list[str]) -> dict[str, str]:
    """Returns {package: public version} of everything that installing `wanted` would bring."""
    command = [str(python), "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"]
    command += ["--report", "-", *HELD, *wanted]
    report = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    versions = {}
    for item in report["install"]:
        name = item["metadata"]["name"].lower().replace("_", "-").replace(".", "-")
        versions[name] = item["metadata"]["version"].split("+")[0]
    del versions["dendrite-jax"]
    return versions


def lines(resolved: dict[str, dict[str, str]]) -> list[str]:
    """Merges {python: {package: version}} into sorted constraint lines."""
    pythons = defaultdict(list)
    for python, versions in resolved.items():
        for name, version in versions.items():
            pythons[name, version].append(python)
    merged = []
    for (name, version), where in sorted(pythons.items()):
        line = f"{name}=={version}"
        if len(where) < len(resolved):
            line += " ; " + " or ".join(f'python_version == "{python}"' for python in where)
        merged.append(line)
    return merged


def main(interpreters: list[str]) -> None:
    resolved = {}
    for interpreter in interpreters:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run([interpreter, "-m", "venv", folder], check=True)
            python = Path(folder) / "bin" / "python"
            subprocess.run([python, "-m", "pip", "install", "-q", "-U", "pip"], check=True)
            version = "import sys; print('%d.%d' % sys.version_info[:2])"
            name = subprocess.check_output([python, "-c", version], text=True).strip()
            oracle = ORACLE if name == ORACLE_PYTHON else []
            resolved[name] = resolve(python, WANTED + oracle)
    (ROOT / "constraints.txt").write_text(HEADER + "\n".join(lines(resolved)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
