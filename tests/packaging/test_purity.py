"""The pure core neither waits for the device nor talks to the host."""

from __future__ import annotations

import ast
from typing import NamedTuple

import pytest
from source_tree import modules

PURE_LAYERS = ("cache", "engine", "search", "kernels")
# What in those layers runs on the host by design: modules, or classes and functions in one.
HOST_SIDE = {
    "dendrite_jax.cache.capacity",
    "dendrite_jax.cache.debug.check",
    "dendrite_jax.cache.ledger._as_int",
    "dendrite_jax.engine.sampling.validate",
    "dendrite_jax.engine.stopping.StopStrings.compile",
    "dendrite_jax.engine.stopping._aho_corasick",
    "dendrite_jax.search.tree.SearchTree.path",
}

# A name stands for everything under it.
FORBIDDEN_NAMES = (
    "datetime",
    "jax.block_until_ready",
    "jax.debug",
    "jax.device_get",
    "jax.experimental.io_callback",
    "jax.pure_callback",
    "numpy.array",
    "numpy.asarray",
    "numpy.random",
    "random",
    "time",
)
# Methods of an array that copy it to the host or wait for it.
FORBIDDEN_METHODS = ("block_until_ready", "copy_to_host_async", "item", "tolist")


class Use(NamedTuple):
    """A forbidden name in a file."""

    scope: str  # dotted name of the innermost module, class or function that holds it
    line: int
    name: str


class _Visitor(ast.NodeVisitor):
    def __init__(self, module: str, tree: ast.Module) -> None:
        self.uses: list[Use] = []
        self._scope = module
        self._aliases: dict[str, str] = {}  # local name: full name
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    full = alias.name if alias.asname else alias.name.split(".")[0]
                    self._aliases[alias.asname or full] = full
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self._aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        self.visit(tree)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.ClassDef) -> None:
        outer, self._scope = self._scope, f"{self._scope}.{node.name}"
        self.generic_visit(node)
        self._scope = outer

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.visit_FunctionDef(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._check(node, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._check(node, f"{node.module}.{alias.name}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self._full_name(node)
        if name is not None and self._check(node, name):
            return
        if node.attr in FORBIDDEN_METHODS:
            self.uses.append(Use(self._scope, node.lineno, f".{node.attr}"))
        self.generic_visit(node)

    def _full_name(self, node: ast.expr) -> str | None:
        """Returns `a.b.c` with its first part looked up in the imports."""
        if isinstance(node, ast.Name):
            return self._aliases.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._full_name(node.value)
            return owner and f"{owner}.{node.attr}"
        return None

    def _check(self, node: ast.stmt | ast.expr, name: str) -> bool:
        forbidden = any(within(name, word) for word in FORBIDDEN_NAMES)
        if forbidden:
            self.uses.append(Use(self._scope, node.lineno, name))
        return forbidden


def within(name: str, owner: str) -> bool:
    """Returns whether a dotted name is `owner` or lies under it."""
    return name == owner or name.startswith(owner + ".")


def host_uses(source: str, module: str = "sample") -> list[Use]:
    return _Visitor(module, ast.parse(source)).uses


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("import jax\njax.device_get(x)", [(2, "jax.device_get")]),
        ("from jax import device_get as get", [(1, "jax.device_get")]),
        ("import jax as j\nj.debug.print('x')", [(2, "jax.debug.print")]),
        ("from jax import debug\ndebug.print('x')", [(1, "jax.debug"), (2, "jax.debug.print")]),
        ("import jax.debug", [(1, "jax.debug")]),
        ("from jax.experimental import io_callback", [(1, "jax.experimental.io_callback")]),
        ("x.block_until_ready()", [(1, ".block_until_ready")]),
        ("x[0].T.item().real", [(1, ".item")]),
        ("import numpy as np\nnp.asarray(x)", [(2, "numpy.asarray")]),
        ("from time import perf_counter", [(1, "time.perf_counter")]),
        ("import jax\njax.random.split(key)\njax.numpy.asarray(x)", []),
        ("import numpy as np\nnp.finfo(np.float32)", []),
        ("state.time\nstate.random", []),
    ],
)
def test_a_use_of_the_host_is_found(source: str, uses: list[tuple[int, str]]) -> None:
    assert [(use.line, use.name) for use in host_uses(source)] == uses


def test_a_use_is_found_in_its_function() -> None:
    source = "class A:\n    def f(x):\n        return x.item()\ndef g(x):\n    return x.tolist()"
    scopes = [use.scope for use in host_uses(source, "pkg.mod")]
    assert scopes == ["pkg.mod.A.f", "pkg.mod.g"]


@pytest.fixture(scope="module")
def core_uses() -> list[Use]:
    core = [module for module in modules() if module.layer in PURE_LAYERS]
    return [use for module in core for use in host_uses(module.path.read_text(), module.name)]


def test_the_pure_core_stays_on_the_device(core_uses: list[Use]) -> None:
    assert [u for u in core_uses if not any(within(u.scope, name) for name in HOST_SIDE)] == []


@pytest.mark.parametrize("name", sorted(HOST_SIDE))
def test_each_listed_host_side_still_uses_the_host(name: str, core_uses: list[Use]) -> None:
    assert any(within(use.scope, name) for use in core_uses)
