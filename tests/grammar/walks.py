"""Random walks through a compiled grammar on the host: many at a time, or beside llguidance."""

from __future__ import annotations

import llguidance
import numpy as np
from numpy.typing import NDArray

from dendrite_jax.grammar.table.compiled import DEAD_STATE, DONE_STATE, CompiledGrammar
from grammar.oracle import Excuse, mask_of, no_excuse, unpacked
from grammar.vocabularies import byte_level


def random_generations(
    grammar: CompiledGrammar, count: int, free_steps: int, seed: int
) -> list[list[int]]:
    """Token sequences up to, and without, the end of sequence.

    A model of random unigram logits at temperature 1.5 chooses for `free_steps` tokens; then the
    shortest way to the end is taken.
    """
    rng = np.random.default_rng(seed)
    next_state = np.asarray(grammar.next_state)
    token_class = np.asarray(grammar.token_class)[0]
    mask_id = np.asarray(grammar.mask_id)
    allowed = np.stack([unpacked(row) for row in np.asarray(grammar.token_bitmask)])
    logits = rng.normal(size=len(token_class)) * 3
    weights = np.where(allowed, np.exp(logits / 1.5), 0.0).cumsum(axis=1)
    closing = _closing_tokens(next_state, token_class)

    state = np.full(count, int(grammar.start[0]))
    taken: list[list[int]] = [[] for _ in range(count)]
    step = 0
    while (state != DONE_STATE).any():
        if step < free_steps:
            row = weights[mask_id[state]]
            token = (row <= rng.random((count, 1)) * row[:, -1:]).sum(axis=1)
        else:
            token = closing[state]
        after = next_state[state, token_class[token]]
        assert (after != DEAD_STATE).all()
        for sequence, chosen, reached in zip(taken, token.tolist(), after.tolist(), strict=True):
            if reached != DONE_STATE:
                sequence.append(chosen)
        state = after
        step += 1
    return taken


def walk_beside(
    grammar: CompiledGrammar,
    root: llguidance.LLMatcher,
    free_steps: int,
    seed: int,
    excused: Excuse = no_excuse,
) -> list[str]:
    """Takes one random walk to the end with llguidance; returns the first differences in words.

    What both allow is chosen from for `free_steps` tokens; then the shortest way to the end is
    taken. The walk ends where that way is not llguidance's and the difference is `excused`.
    """
    rng = np.random.default_rng(seed)
    next_state = np.asarray(grammar.next_state)
    token_class = np.asarray(grammar.token_class)[0]
    mask_id, bitmask = np.asarray(grammar.mask_id), np.asarray(grammar.token_bitmask)
    closing = _closing_tokens(next_state, token_class)
    end = byte_level().eos_ids[0]
    here, state = root.deep_copy(), int(grammar.start[0])
    token_bytes = byte_level().token_bytes
    text, steps = b"", 0
    while state != DONE_STATE:
        ours, theirs = unpacked(bitmask[mask_id[state]]), mask_of(here)
        different = [
            f"after {text!r}: token {token_bytes[token]!r}"
            for token in np.flatnonzero(ours != theirs)
            if not excused(text + (token_bytes[token] or b""), bool(ours[token]))
        ]
        if different:
            return different
        token = int(closing[state])
        if steps < free_steps:
            token = int(rng.choice(np.flatnonzero(ours & theirs)))
        elif not theirs[token]:
            return []
        if token != end and not here.consume_token(token):
            return [f"after {text!r}: llguidance does not take token {token_bytes[token]!r}"]
        text += token_bytes[token] or b""
        steps += 1
        state = int(next_state[state, token_class[token]])
    return [] if here.is_accepting() else [f"after {text!r}: llguidance does not end"]


def _closing_tokens(
    next_state: NDArray[np.int32], token_class: NDArray[np.int32]
) -> NDArray[np.int64]:
    """For each state the first token of a shortest way to the end."""
    example = np.zeros(next_state.shape[1], np.int64)
    example[token_class] = np.arange(len(token_class))
    distance = np.full(len(next_state), np.iinfo(np.int32).max)
    distance[DONE_STATE] = 0
    while True:
        nearest = distance[next_state].min(axis=1)
        shorter = np.minimum(
            distance, np.where(nearest < np.iinfo(np.int32).max, nearest + 1, nearest)
        )
        if (shorter == distance).all():
            return example[distance[next_state].argmin(axis=1)]
        distance = shorter
