"""The pure core neither waits for the device nor talks to the host."""

from __future__ import annotations

import ast

import pytest

from source_tree import imports, modules

PURE_LAYERS = {"cache", "engine", "search", "kernels"}
# Files of those layers that run on the host by design, by module name.
HOST_MODULES = {
    "dendrite_jax.cache.errors",
    "dendrite_jax.cache.resize",
    "dendrite_jax.engine.stop_strings",
    "dendrite_jax.search.export.json_document",
    "dendrite_jax.search.report",
}

# A name stands for everything under it.
FORBIDDEN_NAMES = {
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
}
# Methods of an array that copy it to the host or wait for it.
FORBIDDEN_METHODS = {"block_until_ready", "copy_to_host_async", "item", "tolist"}


class HostUses(ast.NodeVisitor):
    """Collects "line: name" of each use of the host that the pure core must not make."""

    def __init__(self, tree: ast.Module) -> None:
        self.found: list[str] = []
        self._aliases: dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self._alias(alias, alias.name if alias.asname else alias.name.split(".")[0])
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    self._alias(alias, f"{node.module}.{alias.name}")
        for line, name in imports(tree):
            self._check(line, name)
        self.visit(tree)

    def _alias(self, alias: ast.alias, name: str) -> None:
        self._aliases[alias.asname or name.split(".")[-1]] = name

    def _check(self, line: int, name: str) -> bool:
        forbidden = any(name == word or name.startswith(word + ".") for word in FORBIDDEN_NAMES)
        if forbidden:
            self.found.append(f"{line}: {name}")
        return forbidden

    def _full_name(self, node: ast.expr) -> str | None:
        """Returns `a.b.c` with its first part looked up in the imports."""
        if isinstance(node, ast.Name):
            return self._aliases.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._full_name(node.value)
            return owner and f"{owner}.{node.attr}"
        return None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self._full_name(node)
        if name is not None and self._check(node.lineno, name):
            return
        if node.attr in FORBIDDEN_METHODS:
            self.found.append(f"{node.lineno}: .{node.attr}")
        self.generic_visit(node)


def host_uses(source: str) -> list[str]:
    return HostUses(ast.parse(source)).found


@pytest.mark.parametrize(
    ("source", "uses"),
    [
        ("import jax\njax.device_get(x)", ["2: jax.device_get"]),
        ("from jax import device_get as get", ["1: jax.device_get"]),
        ("import jax as j\nj.debug.print('x')", ["2: jax.debug.print"]),
        ("from jax import debug\ndebug.print('x')", ["1: jax.debug", "2: jax.debug.print"]),
        ("from jax.experimental import io_callback", ["1: jax.experimental.io_callback"]),
        ("x.block_until_ready()", ["1: .block_until_ready"]),
        ("def f(x):\n    return x[0].item()", ["2: .item"]),
        ("import numpy as np\nnp.asarray(x)", ["2: numpy.asarray"]),
        ("from time import perf_counter", ["1: time.perf_counter"]),
        ("import jax\njax.random.split(key)\njax.numpy.asarray(x)", []),
        ("import numpy as np\nnp.finfo(np.float32)", []),
        ("state.time\nstate.random", []),
    ],
)
def test_a_use_of_the_host_is_found(source: str, uses: list[str]) -> None:
    assert host_uses(source) == uses


@pytest.mark.parametrize("name", sorted(HOST_MODULES))
def test_each_listed_host_module_uses_the_host(name: str) -> None:
    (module,) = (module for module in modules() if module.name == name)
    assert host_uses(module.path.read_text())


@pytest.mark.parametrize("layer", sorted(PURE_LAYERS))
def test_the_pure_core_stays_on_the_device(layer: str) -> None:
    pure = [m for m in modules() if m.layer == layer and m.name not in HOST_MODULES]
    uses = {m.name: host_uses(m.path.read_text()) for m in pure}
    assert {name: lines for name, lines in uses.items() if lines} == {}
