"""Compiling stop strings to the automaton that `stopping` runs; host side."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from dendrite_jax.engine.stopping import StopStrings


def compile_stop_strings(
    strings: Sequence[str], token_bytes: Sequence[bytes | None]
) -> StopStrings:
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
        data = np.frombuffer(b"".join(token_bytes[i] or b"" for i in ids.tolist()), np.uint8)
        for byte in data.reshape(ids.size, length).T:
            state = goto[state, byte]
        next_state[:, ids] = state
    return StopStrings(jnp.asarray(next_state))


def can_match(stops: StopStrings) -> bool:
    """Whether any run of tokens spells one of the stop strings; reads the device."""
    next_state = np.asarray(stops.next_state)
    reached, new = {0}, {0}
    while new and stops.matched not in reached:
        new = set(np.unique(next_state[sorted(new)]).tolist()) - reached
        reached |= new
    return stops.matched in reached


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
