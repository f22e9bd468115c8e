"""Checks on what users give, before anything reaches the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from dendrite_jax.engine import Sampling, can_match, compile_stop_strings
from dendrite_jax.grammar import CompiledGrammar, LazyGrammar

SEEDS = 2**32
"""Distinct seeds of a random key; larger numbers would repeat them."""


class PromptError(ValueError):
    """A prompt that cannot be run; nothing has changed."""


def check_text(text: str, field: str = "prompt") -> None:
    """Raises PromptError for a text that has no UTF-8, such as a shell argument of other bytes."""
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise PromptError(
            f"{field} has {text[exc.start]!r} at place {exc.start}, which is no Unicode character"
        ) from exc


def check_prompt(tokens: Sequence[int], vocab_size: int, max_context: int) -> None:
    """Raises PromptError for an empty or too long prompt, or an id outside the vocabulary."""
    if not tokens:
        raise PromptError("prompt is empty; it must have at least one token")
    if len(tokens) > max_context:
        raise PromptError(f"prompt has {len(tokens)} tokens; max_context is {max_context}")
    for place, token in enumerate(tokens):
        if not 0 <= token < vocab_size:
            raise PromptError(
                f"prompt token {token} at place {place} is outside the vocabulary [0, {vocab_size})"
            )


def check_seed(seed: int) -> None:
    """Raises ValueError for a seed that is not one of a random key's 2³²."""
    if not 0 <= seed < SEEDS:
        raise ValueError(f"seed is {seed}; it must be from 0 to {SEEDS - 1}")


def check_grammar(grammar: CompiledGrammar | LazyGrammar | None, vocab_size: int) -> None:
    """Raises ValueError for a grammar compiled for another vocabulary."""
    if grammar is not None and grammar.vocab_size != vocab_size:
        raise ValueError(
            f"grammar.vocab_size is {grammar.vocab_size}; the model's vocab_size is {vocab_size}"
        )


def check_stop_strings(strings: Sequence[str], token_bytes: Sequence[bytes | None]) -> None:
    """Raises ValueError for a stop string that no tokens spell, so that it would never stop."""
    for string in strings:
        if not can_match(compile_stop_strings([string], token_bytes)):
            raise ValueError(
                f"stop_strings has {string!r}; no run of the tokenizer's {len(token_bytes)} tokens "
                f"contains it"
            )


def check_sampling(sampling: Sampling) -> None:
    """Raises ValueError naming the first field out of its range; for concrete values."""
    bounds: dict[str, tuple[str, Callable]] = {
        "repetition_penalty": ("> 0 and finite", lambda x: (x > 0) & np.isfinite(x)),
        "temperature": ("≥ 0 and finite", lambda x: (x >= 0) & np.isfinite(x)),
        "top_k": ("≥ 1", lambda x: x >= 1),
        "top_p": ("in (0, 1]", lambda x: (x > 0) & (x <= 1)),
        "min_p": ("in [0, 1]", lambda x: (x >= 0) & (x <= 1)),
    }
    for field, (limit, allowed) in bounds.items():
        value = getattr(sampling, field)
        if value is not None and not np.all(allowed(np.asarray(value))):
            raise ValueError(
                f"sampling.{field} is {np.asarray(value).tolist()}; it must be {limit}"
            )
