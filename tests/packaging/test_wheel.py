"""A wheel built from the tree works outside the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from source_tree import FOLDERS, ROOT, modules, pyproject

DATA = ("*.css", "*.csv", "*.html", "*.js", "*.json", "*.safetensors")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of a copy of the tree, so that no earlier build leaves anything in it."""
    tree = tmp_path_factory.mktemp("tree")
    unwanted = shutil.ignore_patterns("__pycache__")
    for folder in FOLDERS.values():
        shutil.copytree(folder, tree / folder.name, ignore=unwanted)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(out), str(tree)], check=True)
    (path,) = out.iterdir()
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel; the dependencies are this Python's."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-qq", "--no-index"]
    subprocess.run([*pip, "--no-deps", str(wheel)], check=True)
    site = ["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = subprocess.check_output([str(python), *site], text=True).strip()
    # A path in a .pth file is searched after the wheel, and .pth files in it (such as the one of
    # an editable install) are not read.
    Path(packages, "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python.parent


def run(environment: Path, *command: str) -> str:
    """Runs a command of the environment away from the checkout and returns what it prints."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    clean["DENDRITE_COMPILATION_CACHE"] = ""  # keeps out of the user's own cache
    call = [str(environment / command[0]), *command[1:]]
    return subprocess.check_output(call, cwd=environment, env=clean, text=True)


def test_the_wheel_holds_the_package_and_its_data_only(wheel: Path) -> None:
    code = {module.name.replace(".", "/") for module in modules()}
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    python = {name.removesuffix(".py") for name in names if name.endswith(".py")}
    assert {name.removesuffix("/__init__") for name in python} == code
    folders = [ROOT / "dendrite_jax" / name for name in ("search", "tasks")]
    data = {
        str(path.relative_to(ROOT))
        for folder in folders
        for pattern in DATA
        for path in folder.rglob(pattern)
    }
    assert {name for name in names if not name.endswith(".py")} == data | {"dendrite_jax/py.typed"}


def test_every_package_is_imported_from_the_wheel(environment: Path) -> None:
    packages = sorted(m.name for m in modules() if m.path.name == "__init__.py")
    script = f"import {', '.join(packages)}, sys\n"
    script += f"for name in {packages}: print(sys.modules[name].__file__)"
    files = run(environment, "python", "-c", script).split()
    assert len(files) == len(packages)
    assert all(Path(file).is_relative_to(environment.parent) for file in files)


def test_the_console_script_lists_its_commands(environment: Path) -> None:
    text = run(environment, "dendrite", "--help")
    assert all(command in text for command in ("solve", "search", "generate", "bench", "info"))


def test_info_knows_the_version(environment: Path) -> None:
    facts = json.loads(run(environment, "dendrite", "info", "--json"))
    assert facts["version"] == pyproject()["project"]["version"]


@pytest.mark.slow
def test_the_embedded_model_solves_a_puzzle(environment: Path) -> None:
    report = json.loads(run(environment, "dendrite", "solve", "4 5 6 10", "--json"))
    assert sorted(re.findall(r"\d+", report["expression"])) == ["10", "4", "5", "6"]
    assert eval(report["expression"]) == pytest.approx(24)
