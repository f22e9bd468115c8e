"""Which grammars the branches of an engine are under, and compiling one for an engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dendrite_jax.engine import State
from dendrite_jax.grammar import (
    FREE_STATE,
    CompiledGrammar,
    Grammar,
    GrammarCompiler,
    LazyGrammar,
    LazyTable,
    TooManyStatesError,
    UnboundedRecursionError,
    stack,
)

AnyCompiled = CompiledGrammar | LazyGrammar


def compile_or_start(
    compiler: GrammarCompiler, grammar: Grammar, max_recursion_depth: int | None = None
) -> AnyCompiled:
    """A table of the grammar; a grammar that has none runs on the exit-on-miss path.

    Lark grammars have none, nor have recursive schemas without a depth; other tables may be over
    their budgets.

    Raises:
      GrammarError: the grammar is invalid or not supported, or accepts no text, or none that the
        vocabulary can spell.
    """
    try:
        return compiler.compile(grammar, max_recursion_depth)
    except (TooManyStatesError, UnboundedRecursionError):
        return LazyGrammar(compiler, [grammar])


class HeldGrammars:
    """The grammars of a state's table, in its order.

    A table grows by every new grammar while branches are held under others, and starts anew when
    none are.
    """

    def __init__(self) -> None:
        self._indices: list[tuple[AnyCompiled, int]] = []

    @property
    def lazy(self) -> LazyGrammar | None:
        """The grammar to ask about misses, where the table is one that can miss."""
        first = self._indices[0][0] if self._indices else None
        return first if isinstance(first, LazyGrammar) else None

    def add(
        self, state: State, grammar: AnyCompiled, branches: Sequence[int]
    ) -> tuple[CompiledGrammar | LazyTable | None, int]:
        """The table and the grammar's index in it, for `engine.constrain` on these branches.

        Raises:
          ValueError: other branches are under a grammar that no table can hold beside this one.
        """
        if state.constraint is None:
            self._indices = []
        for member, index in self._indices:
            if member is grammar:
                return None, index
        others = _constrained(state) - set(branches)
        if not others or state.constraint is None:
            self._indices = [(grammar, 0)]
            return grammar.table if isinstance(grammar, LazyGrammar) else grammar, 0
        table = state.constraint.table
        if isinstance(grammar, LazyGrammar) or isinstance(table, LazyTable):
            raise ValueError(
                f"grammar cannot join those of branches {sorted(others)}: one without a table "
                "shares a state with no other; free them first, or make one LazyGrammar of both"
            )
        index = table.num_grammars
        self._indices.append((grammar, index))
        return stack([table, grammar]), index


def _constrained(state: State) -> set[int]:
    """The branches that are under a grammar."""
    if state.constraint is None:
        return set()
    return set(np.flatnonzero(np.asarray(state.constraint.grammar_state) != FREE_STATE).tolist())
