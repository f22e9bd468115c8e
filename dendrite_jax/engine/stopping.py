"""When a generated sequence ends: stop tokens, and stop strings matched on the device."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

# Why a lane ended.
RUNNING = 0
LENGTH = 1
STOP_TOKEN = 2
STOP_STRING = 3
FAILED = 4
FINISH_NAMES = ("running", "length", "stop_token", "stop_string", "failed")


@struct.dataclass
class StopRules:
    """What ends a sequence; the token that does is kept and fed to the cache."""

    tokens: Array  # i32[stop tokens], may be empty
    strings: StopStrings | None = None

    @classmethod
    def of(cls, tokens: Sequence[int] = (), strings: StopStrings | None = None) -> StopRules:
        return cls(jnp.asarray(tokens, jnp.int32).reshape(-1), strings)


@struct.dataclass
class StopStrings:
    """Stop strings compiled to an automaton over tokens, so that a match needs no text.

    State 0 is the start; state `num_states` is a match. Every lane carries one state.
    """

    next_state: Array  # i32[num_states, vocab]

    @property
    def matched(self) -> int:
        return self.next_state.shape[0]

    @classmethod
    def compile(cls, strings: Sequence[str], token_bytes: Sequence[bytes | None]) -> StopStrings:
        """Builds the automaton (Aho & Corasick 1975) and runs every token's bytes through it.

        Args:
          strings: the stop strings, matched on UTF-8 bytes wherever tokens begin and end.
          token_bytes: the bytes of each token of the vocabulary; None (a special token) breaks a
            match.

        Raises:
          ValueError: no string, or an empty one.
        """
        if not strings or not all(strings):
            raise ValueError(f"stop strings are {list(strings)!r}; each must have a character")
        goto, final = _aho_corasick([s.encode() for s in strings])
        states, vocab = goto.shape[0], len(token_bytes)
        dead = states  # a match; absorbing
        goto = np.vstack([np.where(final[goto], dead, goto), np.full((1, 256), dead)])
        # Tokens of one length advance together, byte by byte.
        next_state = np.zeros((states, vocab), np.int32)
        lengths = np.array([-1 if b is None else len(b) for b in token_bytes])
        for length in np.unique(lengths[lengths >= 0]):
            ids = np.flatnonzero(lengths == length)
            state = np.repeat(np.arange(states)[:, None], ids.size, axis=1)
            data = np.frombuffer(b"".join(token_bytes[i] or b"" for i in ids), np.uint8)
            for byte in data.reshape(ids.size, length).T:
                state = goto[state, byte]
            next_state[:, ids] = state
        return cls(jnp.asarray(next_state))


def advance_stop(rules: StopRules, string_state: Array, tokens: Array) -> tuple[Array, Array]:
    """Feeds one token a lane: the string states i32[lanes], and why the lane ends (or RUNNING)."""
    hit = jnp.any(tokens[:, None] == rules.tokens, axis=1)
    reason = jnp.where(hit, STOP_TOKEN, RUNNING)
    if rules.strings is not None:
        safe = jnp.minimum(string_state, rules.strings.matched - 1)
        string_state = rules.strings.next_state[safe, tokens]
        matched = string_state == rules.strings.matched
        reason = jnp.where((reason == RUNNING) & matched, STOP_STRING, reason)
    return string_state, reason


def _aho_corasick(patterns: Sequence[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Transitions i64[states, 256] and, for each state, whether a pattern ends there."""
    children: list[dict[int, int]] = [{}]
    ends = [False]
    for pattern in patterns:
        node = 0
        for byte in pattern:
            if byte not in children[node]:
                children[node][byte] = len(children)
                children.append({})
                ends.append(False)
            node = children[node][byte]
        ends[node] = True
    goto = np.zeros((len(children), 256), np.int64)
    fallback = [0] * len(children)
    queue = deque([0])
    while queue:
        node = queue.popleft()
        goto[node] = goto[fallback[node]] if node else 0
        ends[node] |= ends[fallback[node]]
        for byte, child in children[node].items():
            fallback[child] = int(goto[node, byte]) if node else 0
            queue.append(child)
            goto[node, byte] = child
    return goto, np.array(ends)
