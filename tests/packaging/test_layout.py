"""The package list is complete and imports go one way through the layers."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from source_tree import Module, imports, modules, pyproject

# A layer imports only those after it; ROOT is `dendrite_jax/__init__.py`, with what it re-exports.
ROOT = ""
LAYERS = (
    "cli",
    "benchmarks",
    ROOT,
    "tasks",
    "serving",
    "search",
    "testing",
    "engine",
    "grammar",
    "models",
    "text",
    "checkpoints",
    "cache",
    "kernels",
    "config",
)
KERNEL_LIBRARIES = {"jax", "jax_triton", "numpy", "triton"}

MODULES = modules()


def upward_imports(module: Module, source: str) -> list[str]:
    """Returns "line: name" of each import that its layer must not make."""
    below = LAYERS[LAYERS.index(module.layer) :]
    wrong = []
    for line, name in imports(ast.parse(source)):
        package, part = [*name.split("."), ROOT][:2]
        layer = part if part in LAYERS else ROOT
        if package == "dendrite_jax" and layer not in below:
            wrong.append(f"{line}: {name}")
    return wrong


def foreign_kernel_imports(source: str) -> list[str]:
    """Returns "line: name" of each import of a kernel beyond the libraries kernels may use."""
    allowed = KERNEL_LIBRARIES | set(sys.stdlib_module_names)
    wrong = []
    for line, name in imports(ast.parse(source)):
        in_kernels = name == "dendrite_jax.kernels" or name.startswith("dendrite_jax.kernels.")
        if not in_kernels and name.split(".")[0] not in allowed:
            wrong.append(f"{line}: {name}")
    return wrong


def test_the_wheel_lists_every_package() -> None:
    packages = {module.name for module in MODULES if module.path.name == "__init__.py"}
    assert sorted(packages) == pyproject()["tool"]["setuptools"]["packages"]


def test_every_python_file_is_in_a_package() -> None:
    bare = [str(m.path) for m in MODULES if not (m.path.parent / "__init__.py").exists()]
    assert bare == []


def test_every_folder_has_a_place_in_the_order() -> None:
    assert {module.layer for module in MODULES} <= set(LAYERS)


@pytest.mark.parametrize(
    ("layer", "line", "is_wrong"),
    [
        ("engine", "from dendrite_jax.cache import pool", False),
        ("engine", "import dendrite_jax.search.beam", True),
        ("engine", "from dendrite_jax import search", True),
        ("cache", "def f():\n    from dendrite_jax.models.config import ModelConfig", True),
        ("tasks", "from dendrite_jax.search import beam_search", False),
        ("tasks", "from dendrite_jax.cli.main import main", True),
        ("testing", "from dendrite_jax.engine import step", False),
        ("testing", "from dendrite_jax.search import beam_search", True),
        ("benchmarks", "import dendrite_jax", False),
        ("serving", "from dendrite_jax import Engine", True),
        (ROOT, "from dendrite_jax.serving import Engine", False),
        (ROOT, "from dendrite_jax.cli import main", True),
    ],
)
def test_an_upward_import_is_found(layer: str, line: str, is_wrong: bool) -> None:
    module = Module(f"dendrite_jax.{layer}.sample", Path("sample.py"))
    assert bool(upward_imports(module, line)) == is_wrong


@pytest.mark.parametrize(
    ("line", "is_wrong"),
    [
        ("import math\nimport jax.numpy as jnp\nimport triton.language as tl", False),
        ("from dendrite_jax.kernels.append_kv import reference", False),
        ("from dendrite_jax.cache import pool", True),
        ("def f():\n    import torch", True),
    ],
)
def test_a_foreign_import_of_a_kernel_is_found(line: str, is_wrong: bool) -> None:
    assert bool(foreign_kernel_imports(line)) == is_wrong


@pytest.mark.parametrize("layer", LAYERS)
def test_no_layer_imports_upwards(layer: str) -> None:
    wrong = {m.name: upward_imports(m, m.path.read_text()) for m in MODULES if m.layer == layer}
    assert {name: lines for name, lines in wrong.items() if lines} == {}


def test_kernels_import_array_libraries_only() -> None:
    kernels = [module for module in MODULES if module.layer == "kernels"]
    wrong = {m.name: foreign_kernel_imports(m.path.read_text()) for m in kernels}
    assert {name: lines for name, lines in wrong.items() if lines} == {}
