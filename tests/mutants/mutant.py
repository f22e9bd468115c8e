"""What a mutation is."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path


class MutantError(Exception):
    """A mutation that can no longer be made."""


@dataclass(frozen=True)
class Mutant:
    """One line of the package made wrong, and the tests of which one must fail then."""

    name: str
    """What is broken."""
    file: str
    """Relative to the root of the tree."""
    old: str
    """Part of a line that occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """pytest's ids, below `tests/`."""

    def applied(self, root: Path) -> str:
        """The mutated source of the file below `root`.

        Raises:
          MutantError: `old` is not in the file exactly once, or the new source is no Python.
        """
        source = (root / self.file).read_text()
        if "\n" in self.old + self.new:
            raise MutantError(f"{self.name}: old and new must be parts of one line")
        if (count := source.count(self.old)) != 1:
            raise MutantError(f"{self.name}: {self.old!r} is {count} times in {self.file}")
        mutated = source.replace(self.old, self.new)
        try:
            tree = ast.parse(mutated)
        except SyntaxError as exc:
            raise MutantError(f"{self.name}: {exc}") from exc
        if ast.dump(tree) == ast.dump(ast.parse(source)):
            raise MutantError(f"{self.name}: the new line means what the old one does")
        return mutated
