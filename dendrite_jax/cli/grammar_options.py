"""The options that put a generation under a grammar."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from dendrite_jax.grammar import CompiledGrammar, Grammar, LazyGrammar

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_OPTIONS = {
    "json_schema": click.option(
        "--json-schema", type=_FILE, help="Generate JSON that is valid under this schema."
    ),
    "regex": click.option("--regex", help="Generate a text that this regex matches as a whole."),
    "lark": click.option(
        "--lark", type=_FILE, help="Generate a text of this grammar in llguidance's Lark syntax."
    ),
    "choice": click.option("--choice", help="Generate one of these texts, divided by commas."),
}


def grammar_options(command: F) -> F:
    """Adds the options; the command gets the `grammar` they make, None without one."""

    @wraps(command)
    def with_grammar(*args: Any, **options: Any) -> Any:
        given = {name: options.pop(name) for name in _OPTIONS}
        return command(*args, grammar=_grammar(given), **options)

    for option in reversed(_OPTIONS.values()):
        with_grammar = option(with_grammar)
    return with_grammar  # type: ignore[return-value]


def path_name(compiled: CompiledGrammar | LazyGrammar) -> str:
    """How a grammar runs, for reports: "table" or "exit-on-miss"."""
    from dendrite_jax.grammar import LazyGrammar

    return "exit-on-miss" if isinstance(compiled, LazyGrammar) else "table"


def _grammar(given: dict[str, Any]) -> Grammar | None:
    named = {name: value for name, value in given.items() if value is not None}
    if len(named) > 1:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in named)
        raise click.UsageError(f"{names} cannot be given together; a text has one grammar")
    if not named:
        return None
    from dendrite_jax.grammar import Grammar

    ((name, value),) = named.items()
    if name == "json_schema":
        return Grammar.from_json_schema(_read(value))
    if name == "regex":
        return Grammar.from_regex(value)
    if name == "lark":
        return Grammar.from_lark(_read(value))
    choices = value.split(",")
    if "" in choices:
        raise click.UsageError(f"--choice {value!r}: text {choices.index('') + 1} is empty")
    return Grammar.from_choice(choices)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as exc:
        raise click.BadParameter(f"{path} is not UTF-8 at byte {exc.start}") from exc
