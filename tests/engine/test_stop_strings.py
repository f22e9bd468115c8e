"""Stop strings found token by token against a search in the text."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_jax.engine import StopRules, StopStrings, can_match, compile_stop_strings
from dendrite_jax.engine.stopping import MATCHED, RUNNING, STOP_STRING, STOP_TOKEN, advance_stop

advance = jax.jit(advance_stop)


def first_match(
    strings: Sequence[str], token_bytes: Sequence[bytes | None], tokens: Sequence[int]
) -> int | None:
    """How many tokens there are when the text first contains a stop string."""
    text = b""
    for count, token in enumerate(tokens, start=1):
        piece = token_bytes[token]
        text = b"" if piece is None else text + piece
        if any(string.encode() in text for string in strings):
            return count
    return None


def walk(table: StopStrings, tokens: Sequence[int]) -> int | None:
    """The same by the compiled table."""
    next_state, state = np.asarray(table.next_state), 0
    for count, token in enumerate(tokens, start=1):
        state = next_state[state, token]
        if state == MATCHED:
            return count
    return None


STRINGS = st.lists(st.text("ab", min_size=1, max_size=5), min_size=1, max_size=4)
PIECES = st.none() | st.text("ab", max_size=4).map(str.encode)
VOCABULARIES = st.lists(PIECES, min_size=3, max_size=8)


@given(STRINGS, VOCABULARIES, st.lists(st.integers(0, 2), max_size=30))
@settings(max_examples=300)
def test_matches_fall_where_the_text_has_them(
    strings: list[str], token_bytes: list[bytes | None], tokens: list[int]
) -> None:
    table = compile_stop_strings(strings, token_bytes)
    assert walk(table, tokens) == first_match(strings, token_bytes, tokens)


@pytest.mark.parametrize(
    ("strings", "tokens", "expected"),
    [
        (["cd"], [0, 1], 2),  # across a boundary
        (["bc"], [0, 1], 2),
        (["b"], [0, 1], 1),  # inside a token
        (["abcdab"], [0, 1, 0], 3),
        (["ababcd"], [0, 0, 0, 1], 4),  # falls back to a shorter prefix
        (["cdx", "dab"], [1, 0], 2),  # the suffix of a longer string
        (["abcd"], [0, 2, 1], None),  # a special token breaks it
        (["abcd"], [0, 3, 1], 3),  # a token without bytes does not
        (["é"], [4, 5], 2),  # two bytes in two tokens
        (["é"], [5, 4], None),
        (["zz"], [0, 1, 2, 3], None),
    ],
)
def test_a_match_by_hand(strings: list[str], tokens: list[int], expected: int | None) -> None:
    token_bytes = [b"ab", b"cd", None, b"", b"\xc3", b"\xa9"]
    assert walk(compile_stop_strings(strings, token_bytes), tokens) == expected


@given(st.text("ab", min_size=1, max_size=3), VOCABULARIES)
@settings(max_examples=100)
def test_a_string_can_match_where_some_tokens_spell_it(
    string: str, token_bytes: list[bytes | None]
) -> None:
    # A shortest match needs no more tokens with bytes than the string has bytes.
    pieces = {piece for piece in token_bytes if piece}
    texts = {b""}
    for _ in string:
        texts |= {text + piece for text in texts for piece in pieces}
    expected = any(string.encode() in text for text in texts)
    assert can_match(compile_stop_strings([string], token_bytes)) == expected


@pytest.mark.parametrize("strings", [[], [""], ["a", ""]])
def test_an_empty_string_is_refused(strings: list[str]) -> None:
    with pytest.raises(ValueError, match="each must have a character"):
        compile_stop_strings(strings, [b"a"])


TOKEN_BYTES = [b"a", b"b", b"c", b"xy", b"z", b"\n"]
RULES = StopRules.of([5, -1], compile_stop_strings(["cz", "yz", "z\n", "abc"], TOKEN_BYTES))


def feed(tokens: Sequence[int], state: int = 0) -> tuple[int, list[int]]:
    """The string state after tokens in one of four lanes, and the reason after each."""
    lanes, reasons = np.array([0, state, 0, 0], np.int32), []
    for token in tokens:
        lanes, reason = advance(RULES, lanes, np.array([1, token, 0, 2]))
        reasons.append(int(reason[1]))
    return int(lanes[1]), reasons


def test_the_reason_of_a_stop() -> None:
    assert feed([0, 1, 2])[1] == [RUNNING, RUNNING, STOP_STRING]
    assert feed([3, 4])[1] == [RUNNING, STOP_STRING]
    assert feed([0, 5])[1] == [RUNNING, STOP_TOKEN]


def test_a_stop_token_that_also_ends_a_string_is_a_stop_token() -> None:
    assert feed([4, 5])[1] == [RUNNING, STOP_TOKEN]


def test_matching_goes_on_from_a_kept_state() -> None:
    state, _ = feed([0, 1])
    assert feed([2], state)[1] == [STOP_STRING]
    assert feed([2])[1] == [RUNNING]


@pytest.mark.parametrize("ended_by", [[0, 1, 2], [3, 4]])
def test_matching_starts_afresh_after_a_match(ended_by: list[int]) -> None:
    matched, _ = feed(ended_by)
    for tokens in ([2], [4], [1, 2], [5], [0, 1, 2], [3, 4]):
        assert feed(tokens, matched)[1] == feed(tokens)[1]


def test_rules_without_strings_know_tokens_only() -> None:
    rules = StopRules.of([1])
    state, reason = advance(rules, np.zeros(4, np.int32), np.array([0, 1, 2, 1]))
    assert reason.tolist() == [RUNNING, STOP_TOKEN, RUNNING, STOP_TOKEN]
    assert state.tolist() == [0] * 4
    _, reason = advance(StopRules.of(), np.zeros(4, np.int32), np.array([0, 1, 2, 1]))
    assert reason.tolist() == [RUNNING] * 4
