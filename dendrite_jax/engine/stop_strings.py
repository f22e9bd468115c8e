"""Compiling stop strings to the automata that `stopping` runs; host side."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax.engine.stopping import MATCHED, StopStrings

SMALLEST = 8
"""States that the smallest table has room for."""


class ByteAutomaton:
    """Finds strings in a run of bytes (Aho & Corasick 1975); state 0 is the start.

    Attributes:
      next_state: i64[states, 256].
      longest: i64[states], bytes of the longest string that ends in the state, 0 where none does.
      depth: i64[states], how many of the last bytes may be the beginning of a string.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        """Takes the strings, matched as UTF-8.

        Raises:
          ValueError: no string, an empty one, one that is no Unicode, or a text for their sequence.
        """
        if isinstance(strings, str):
            strings = [strings]
        if not strings or not all(isinstance(string, str) and string for string in strings):
            raise ValueError(f"stop strings are {list(strings)!r}; each must have a character")
        try:
            patterns = [string.encode() for string in strings]
        except UnicodeEncodeError as exc:
            raise ValueError(f"stop strings have {exc.object!r}, which is no Unicode text") from exc
        children: list[dict[int, int]] = [{}]
        longest, depth = [0], [0]
        for pattern in patterns:
            node = 0
            for byte in pattern:
                if byte not in children[node]:
                    children[node][byte] = len(children)
                    children.append({})
                    longest.append(0)
                    depth.append(depth[node] + 1)
                node = children[node][byte]
            longest[node] = len(pattern)
        next_state = np.zeros((len(children), 256), np.int64)
        fallback = [0] * len(children)
        queue = deque([0])
        while queue:
            node = queue.popleft()
            next_state[node] = next_state[fallback[node]] if node else 0
            longest[node] = longest[node] or longest[fallback[node]]
            for byte, child in children[node].items():
                fallback[child] = int(next_state[node, byte]) if node else 0
                queue.append(child)
                next_state[node, byte] = child
        self.next_state = next_state
        self.longest = np.array(longest)
        self.depth = np.array(depth)


def compile_stop_strings(
    strings: Sequence[str] | ByteAutomaton, token_bytes: Sequence[bytes | None]
) -> StopStrings:
    """Runs every token's bytes through the automaton of some stop strings.

    The number of states is rounded up to a power of two of at least SMALLEST, so that other strings
    seldom are another trace.

    Args:
      strings: the stop strings, or one, matched on UTF-8 bytes wherever tokens begin and end.
      token_bytes: the bytes of each token of the vocabulary, those of a special token's own text
        where that may end a sequence too; None (an id without text) breaks a match.

    Raises:
      ValueError: no string, or an empty one.
    """
    automaton = strings if isinstance(strings, ByteAutomaton) else ByteAutomaton(strings)
    states, vocab = automaton.next_state.shape[0], len(token_bytes)
    dead = states  # a match; absorbing
    goto = np.where(automaton.longest[automaton.next_state] > 0, dead, automaton.next_state)
    goto = np.vstack([goto, np.full((1, 256), dead)])
    # Tokens of one length advance together, byte by byte.
    next_state = np.zeros((max(SMALLEST, 1 << (states - 1).bit_length()), vocab), np.int32)
    lengths = np.array([-1 if b is None else len(b) for b in token_bytes])
    for length in np.unique(lengths[lengths >= 0]):
        ids = np.flatnonzero(lengths == length)
        state = np.repeat(np.arange(states)[:, None], ids.size, axis=1)
        data = np.frombuffer(b"".join(token_bytes[i] or b"" for i in ids.tolist()), np.uint8)
        for byte in data.reshape(ids.size, length).T:
            state = goto[state, byte]
        next_state[:states, ids] = np.where(state == dead, MATCHED, state)
    return StopStrings(*jax.device_put((next_state, np.zeros(1, np.int32))))


def stack_stop_strings(automata: Sequence[StopStrings]) -> StopStrings:
    """One of several, for lanes with other strings each; their numbers go on one after another."""
    rows = np.cumsum([0, *(stops.next_state.shape[0] for stops in automata)])
    return StopStrings(
        next_state=jnp.concatenate([stops.next_state for stops in automata]),
        first=jnp.concatenate(
            [stops.first + row for stops, row in zip(automata, rows[:-1].tolist(), strict=True)]
        ),
    )


def can_match(stops: StopStrings) -> bool:
    """Whether any run of tokens spells one of the stop strings; reads the device."""
    next_state = np.asarray(stops.next_state)
    reached, new = {0}, {0}
    while new and MATCHED not in reached:
        new = set(np.unique(next_state[sorted(new)]).tolist()) - reached
        reached |= new
    return MATCHED in reached
