"""When a generated sequence ends: stop tokens, and stop strings matched on the device."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
from flax import struct
from jax import Array

# Why a lane ended.
RUNNING = 0
LENGTH = 1
STOP_TOKEN = 2
STOP_STRING = 3
FAILED = 4
GRAMMAR_DEAD = 5
GRAMMAR_MISS = 6
FINISH_NAMES = (
    "running",
    "length",
    "stop_token",
    "stop_string",
    "failed",
    "grammar_dead",
    "grammar_miss",
)


class StopRules(struct.PyTreeNode):
    """What ends a sequence; the token that does is kept and fed to the cache."""

    tokens: Array  # i32[stop tokens], may be empty
    strings: StopStrings | None = None

    @classmethod
    def of(cls, tokens: Sequence[int] = (), strings: StopStrings | None = None) -> StopRules:
        return cls(jnp.asarray(tokens, jnp.int32).reshape(-1), strings)


class StopStrings(struct.PyTreeNode):
    """Stop strings compiled to an automaton over tokens, so that a match needs no text.

    State 0 is the start; state `num_states` is a match. Every lane carries one state.
    """

    next_state: Array  # i32[num_states, vocab]

    @property
    def matched(self) -> int:
        return self.next_state.shape[0]


def advance_stop(rules: StopRules, string_state: Array, tokens: Array) -> tuple[Array, Array]:
    """Feeds one token a lane: the string states i32[lanes], and why the lane ends (or RUNNING).

    A lane that goes on after a match starts afresh.
    """
    hit = jnp.any(tokens[:, None] == rules.tokens, axis=1)
    reason = jnp.where(hit, STOP_TOKEN, RUNNING)
    if rules.strings is not None:
        unmatched = jnp.where(string_state == rules.strings.matched, 0, string_state)
        string_state = rules.strings.next_state[unmatched, tokens]
        matched = string_state == rules.strings.matched
        reason = jnp.where((reason == RUNNING) & matched, STOP_STRING, reason)
    return string_state, reason
