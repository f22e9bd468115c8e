"""The shipped Python files of this checkout and what they import, read without running them."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Where each package lies; a longer name wins over the package that holds it.
FOLDERS = {
    "dendrite_jax": ROOT / "dendrite_jax",
    "dendrite_jax.benchmarks": ROOT / "benchmarks",
    "dendrite_jax.kernels": ROOT / "kernels",
}


@dataclass(frozen=True)
class Module:
    """A shipped Python file."""

    name: str
    """The dotted name it is imported by; a package's own name for its `__init__.py`."""
    path: Path

    @property
    def layer(self) -> str:
        """The folder or file directly under dendrite_jax that holds it; "" for its `__init__`."""
        return [*self.name.split("."), ""][1]


def pyproject() -> dict[str, Any]:
    """Returns the parsed pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules() -> list[Module]:
    """Returns every Python file that a wheel should hold."""
    found = []
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            name = ".".join((package, *parts)).removesuffix(".__init__")
            found.append(Module(name, path))
    return found


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yields (line, dotted name) of every import in a file, wherever it stands in it.

    `from a import b` yields `a.b`, which may be a module or a name in one. Relative imports are
    refused: they would hide which layer a file reaches into.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            if node.level or node.module is None:
                raise ValueError(f"line {node.lineno}: relative import; name the package")
            for alias in node.names:
                yield node.lineno, f"{node.module}.{alias.name}"
