"""When a generated sequence ends: its length, stop tokens, and stop strings matched on the device.

What differs between lanes is data: each may have a limit, stop tokens and stop strings of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

AnyArray = Array | np.ndarray

# Why a lane ended.
RUNNING = 0
LENGTH = 1
STOP_TOKEN = 2
STOP_STRING = 3
FAILED = 4
GRAMMAR_DEAD = 5
GRAMMAR_MISS = 6
BAD_LOGITS = 7
FINISH_NAMES = (
    "running",
    "length",
    "stop_token",
    "stop_string",
    "failed",
    "grammar_dead",
    "grammar_miss",
    "bad_logits",
)

NO_AUTOMATON = -1
"""The `automaton` of a lane without stop strings."""
MATCHED = -1
"""The string state of a lane that has just spelt a stop string."""


class StopRules(struct.PyTreeNode):
    """What ends a sequence; the token that does is kept and fed to the cache.

    A field that is None is off and costs nothing; turning one on or off is a new trace, changing
    its value is not.
    """

    tokens: AnyArray | None = None  # i32[n] for all lanes or i32[lanes, n], padded with NO_TOKEN
    strings: StopStrings | None = None
    automaton: AnyArray | None = None  # i32[lanes], whose strings end the lane, NO_AUTOMATON: none
    limit: AnyArray | int | None = None  # i32[] or i32[lanes], most new tokens, up to the config's

    @classmethod
    def of(
        cls,
        tokens: Sequence[int] = (),
        strings: StopStrings | None = None,
        limit: AnyArray | int | None = None,
    ) -> StopRules:
        """Rules that are the same for all lanes."""
        ids = jnp.asarray(tokens, jnp.int32).reshape(-1) if len(tokens) else None
        return cls(ids, strings, limit=limit)


class StopStrings(struct.PyTreeNode):
    """Stop strings compiled to automata over tokens, so that a match needs no text.

    A lane carries the state that it has reached in its own automaton, from 0, the start; the
    automata's states lie one after another. `compile_stop_strings` makes one automaton,
    `stack_stop_strings` several.
    """

    next_state: Array  # i32[states, vocab], a state of the same automaton, or MATCHED
    first: Array  # i32[automata], the row of each one's start


def advance_stop(rules: StopRules, string_state: Array, tokens: Array) -> tuple[Array, Array]:
    """Feeds one token a lane: the string states i32[lanes], and why the lane ends (or RUNNING).

    A lane that goes on after a match starts afresh.
    """
    reason = jnp.full(tokens.shape, RUNNING, jnp.int32)
    if rules.tokens is not None and rules.tokens.size:
        hit = jnp.any(tokens[:, None] == rules.tokens, axis=1)
        reason = jnp.where(hit, STOP_TOKEN, reason)
    if rules.strings is not None:
        automaton = jnp.int32(0) if rules.automaton is None else rules.automaton
        row = rules.strings.first[jnp.maximum(automaton, 0)] + jnp.maximum(string_state, 0)
        after = rules.strings.next_state[row, tokens]
        string_state = jnp.where(automaton == NO_AUTOMATON, 0, after)
        matched = string_state == MATCHED
        reason = jnp.where((reason == RUNNING) & matched, STOP_STRING, reason)
    return string_state, reason
