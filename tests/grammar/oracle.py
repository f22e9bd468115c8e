"""llguidance as the oracle: its mask in every state of a compiled grammar."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

import llguidance
import llguidance.numpy
import numpy as np
from numpy.typing import NDArray

from dendrite_jax.grammar.table.compiled import DEAD_STATE, DONE_STATE, CompiledGrammar
from grammar.vocabularies import byte_level, llguidance_tokenizer

# Whether a difference is one that test_differences.py names: the text up to and with the token on
# which the masks differ, and whether it is allowed here rather than by llguidance.
Excuse = Callable[[bytes, bool], bool]

# Without it llguidance allows only one tokenisation of what is forced.
_HEADER = '%llguidance {"no_forcing": true}\n'


def regex_matcher(pattern: str) -> llguidance.LLMatcher:
    """A matcher for a regex in JSON Schema's dialect."""
    return matcher(f"{_HEADER}start: /{llguidance.regex_to_lark(pattern, 'dw')}/")


def schema_matcher(schema: Any) -> llguidance.LLMatcher:
    """A matcher for a JSON schema."""
    return matcher(f"{_HEADER}start: %json {json.dumps(schema, ensure_ascii=False)}")


def matcher(lark: str) -> llguidance.LLMatcher:
    """A matcher for a grammar in Lark syntax; an invalid one is an AssertionError."""
    found = llguidance.LLMatcher(llguidance_tokenizer(), lark, log_level=0)
    assert not found.is_error(), found.get_error()
    return found


def mask_of(found: llguidance.LLMatcher) -> NDArray[np.bool_]:
    """bool[vocabulary]: the tokens that llguidance allows next."""
    size = len(byte_level().token_bytes)
    words = llguidance.numpy.allocate_token_bitmask(1, size)
    llguidance.numpy.fill_next_token_bitmask(found, words, 0)
    return unpacked(words[0].view(np.uint32))


def unpacked(words: NDArray[np.uint32]) -> NDArray[np.bool_]:
    """bool[vocabulary] from packed words."""
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    return bits[: len(byte_level().token_bytes)].astype(bool)


def no_excuse(text: bytes, ours: bool) -> bool:
    """Every difference counts."""
    return False


def mismatches(
    grammar: CompiledGrammar, root: llguidance.LLMatcher, excused: Excuse = no_excuse
) -> list[str]:
    """Compares the masks in every state that tokens reach; returns the differences in words.

    Those that are `excused` do not count, and what comes after them is not compared.
    """
    token_bytes = byte_level().token_bytes
    next_state = np.asarray(grammar.next_state)
    token_class = np.asarray(grammar.token_class)[0]
    bitmask, mask_id = np.asarray(grammar.token_bitmask), np.asarray(grammar.mask_id)
    start = int(grammar.start[0])
    # The shortest token of each class leads the walk.
    order = sorted(range(len(token_bytes)), key=lambda i: len(token_bytes[i] or b"?" * 99))
    representative = {int(token_class[i]): i for i in reversed(order)}

    found = []
    passed_over = False
    seen = {start}
    queue = deque([(start, root.deep_copy(), b"")])
    while queue:
        state, here, text = queue.popleft()
        ours, theirs = unpacked(bitmask[mask_id[state]]), mask_of(here)
        different = np.flatnonzero(ours != theirs)
        counted = [
            token
            for token in different.tolist()
            if not excused(text + (token_bytes[token] or b""), bool(ours[token]))
        ]
        passed_over |= len(counted) < len(different)
        for token in counted[:3]:
            side = "only here" if ours[token] else "only in llguidance"
            found.append(f"after {text!r}: token {token_bytes[token]!r} {side}")
        for column, token in representative.items():
            after = int(next_state[state, column])
            if after in (DEAD_STATE, DONE_STATE) or after in seen:
                continue
            fork = here.deep_copy()
            if fork.consume_token(token):
                seen.add(after)
                queue.append((after, fork, text + (token_bytes[token] or b"")))
    assert len(seen) >= np.sum(np.any(next_state[3:] != DEAD_STATE, axis=1)) or found or passed_over
    return found
