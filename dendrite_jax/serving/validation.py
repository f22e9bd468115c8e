"""Checks on what users give, before anything reaches the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import index
from typing import Any

import numpy as np

from dendrite_jax.engine import Sampling, can_match, compile_stop_strings
from dendrite_jax.grammar import CompiledGrammar, LazyGrammar

SEEDS = 2**32
"""Distinct seeds of a random key; larger numbers would repeat them."""


class PromptError(ValueError):
    """A prompt that cannot be run; nothing has changed."""


def whole_number(value: Any, field: str, least: int) -> int:
    """The value as an integer; ValueError for another kind or a smaller one."""
    try:
        number = index(value)
    except TypeError:
        raise ValueError(f"{field} is {_short(value)}; it takes a whole number") from None
    if number < least:
        raise ValueError(f"{field} is {number}; it must be at least {least}")
    return number


def whole_numbers(values: Any, field: str, takes: str) -> list[int]:
    """The values as integers; ValueError, which says what the field takes, for another kind."""
    try:
        if isinstance(values, str | bytes):
            raise TypeError
        return [index(value) for value in values]
    except TypeError:
        raise ValueError(f"{field} is {_short(values)}; it takes {takes}") from None


def branch_id(value: Any, field: str = "branch") -> int:
    """The value as one branch id; ValueError for another kind."""
    try:
        return index(value)
    except TypeError:
        raise ValueError(f"{field} is {_short(value)}; it takes one branch id") from None


def branch_ids(values: Any, field: str = "branches") -> list[int]:
    """The values as branch ids; ValueError for another kind, such as one bare id."""
    return whole_numbers(values, field, "a list of branch ids, such as [0]")


def texts(values: Any, field: str) -> list[str]:
    """The values as texts, a bare one as the only one; ValueError for another kind."""
    given = [values] if isinstance(values, str) else values
    if not isinstance(given, Iterable):
        raise ValueError(f"{field} is {_short(values)}; it takes a text or a list of texts")
    given = list(given)
    if not all(isinstance(value, str) for value in given):
        raise ValueError(f"{field} is {_short(values)}; it takes a text or a list of texts")
    return given


def prompt_ids(values: Any) -> list[int]:
    """The token ids of one prompt; PromptError for what is neither a text nor ids."""
    try:
        return whole_numbers(values, "prompt", "one text, or the token ids of one")
    except ValueError as exc:
        raise PromptError(str(exc)) from None


def _short(value: Any) -> str:
    shown = " ".join(repr(value).split())  # one line, of an array too
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def check_text(text: str, field: str = "prompt") -> None:
    """Raises PromptError for a text that has no UTF-8, such as a shell argument of other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise PromptError(
            f"{field} has {text[exc.start]!r} at place {exc.start}, which is no Unicode character"
        ) from exc


def check_prompt(tokens: Sequence[int], vocab_size: int, max_context: int | None = None) -> None:
    """Raises PromptError for an empty or too long prompt, or an id outside the vocabulary."""
    if not tokens:
        raise PromptError("prompt is empty; it must have at least one token")
    if max_context is not None and len(tokens) > max_context:
        raise PromptError(f"prompt has {len(tokens)} tokens; max_context is {max_context}")
    for place, token in enumerate(tokens):
        if not 0 <= token < vocab_size:
            raise PromptError(
                f"prompt token {token} at place {place} is outside the vocabulary [0, {vocab_size})"
            )


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that is not one of a random key's 2³²."""
    try:
        seed = index(seed)
    except TypeError:
        raise ValueError(f"seed is {_short(seed)}; it takes a whole number") from None
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed is {seed}; it must be from 0 to {SEEDS - 1}")


def check_grammar(grammar: CompiledGrammar | LazyGrammar | None, vocab_size: int) -> None:
    """Raises ValueError for what is no compiled grammar, or one of another vocabulary."""
    if not isinstance(grammar, CompiledGrammar | LazyGrammar | None):
        raise ValueError(f"grammar is {_short(grammar)}; it takes what `Engine.compile` gives")
    if grammar is not None and grammar.vocab_size != vocab_size:
        raise ValueError(
            f"grammar.vocab_size is {grammar.vocab_size}; the model's vocab_size is {vocab_size}"
        )


def check_stop_strings(strings: Sequence[str], token_bytes: Sequence[bytes | None]) -> None:
    """Raises ValueError for a stop string that no tokens spell, so that it would never stop."""
    for string in texts(strings, "stop_strings"):
        if not can_match(compile_stop_strings([string], token_bytes)):
            raise ValueError(
                f"stop_strings has {string!r}; no run of the tokenizer's {len(token_bytes)} tokens "
                f"contains it"
            )


def check_sampling(sampling: Sampling) -> None:
    """Raises ValueError naming the first field out of its range; for concrete values."""
    if not isinstance(sampling, Sampling):
        raise ValueError(
            f"sampling is {_short(sampling)}; it takes a Sampling, such as Sampling(temperature=0)"
        )
    bounds: dict[str, tuple[str, Callable]] = {
        "repetition_penalty": ("> 0 and finite", lambda x: (x > 0) & np.isfinite(x)),
        "temperature": ("≥ 0 and finite", lambda x: (x >= 0) & np.isfinite(x)),
        "top_k": ("≥ 1", lambda x: x >= 1),
        "top_p": ("in (0, 1]", lambda x: (x > 0) & (x <= 1)),
        "min_p": ("in [0, 1]", lambda x: (x >= 0) & (x <= 1)),
    }
    for field, (limit, allowed) in bounds.items():
        value = getattr(sampling, field)
        if value is not None and not np.issubdtype(np.asarray(value).dtype, np.number):
            raise ValueError(f"sampling.{field} is {_short(value)}; it takes a number")
        if value is not None and not np.all(allowed(np.asarray(value))):
            raise ValueError(
                f"sampling.{field} is {np.asarray(value).tolist()}; it must be {limit}"
            )
