"""The text of a branch against a search in the whole text: stops, special tokens, characters."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dendrite_jax.engine import ByteAutomaton, compile_stop_strings
from dendrite_jax.engine.stopping import FINISH_NAMES, MATCHED
from dendrite_jax.serving.completion import Completion, Record, TokenTexts

LENGTH, STOP_TOKEN, STOP_STRING = 1, 2, 3
SPECIAL = "<|s|>"
TEXTS = TokenTexts(
    visible=[b"a", b"b", b"ab", b"c", "é".encode(), b"\xc3", b"\xa9", b"", None, None],
    matched=[b"a", b"b", b"ab", b"c", "é".encode(), b"\xc3", b"\xa9", b"", SPECIAL.encode(), None],
)
A, B, AB, C, É, C3, A9, EMPTY, MARK, UNUSED = range(10)


def streamed(
    tokens: Sequence[int], stops: Sequence[str], chunk: int, finish: int = LENGTH
) -> list[Completion]:
    """What a stream of these tokens yields; they end where the device's table has a match."""
    table = np.asarray(compile_stop_strings(stops, TEXTS.matched).next_state) if stops else None
    record = Record(0, TEXTS, ByteAutomaton(stops) if stops else None)
    state, rounds = 0, []
    for begin in range(0, len(tokens), chunk):
        taken, reason = [], LENGTH
        for token in tokens[begin : begin + chunk]:
            taken.append(token)
            if table is not None:
                state = int(table[state, token])
            if state == MATCHED:
                reason = STOP_STRING
                break
        last = begin + chunk >= len(tokens)
        ended = finish if last and reason == LENGTH else reason
        row = np.array(taken + [-1] * (chunk - len(taken)))
        record.take(row, len(taken), np.zeros(chunk), np.zeros(chunk), ended, last=last)
        rounds.append(record.completion())
        if not record.running:
            break
    return rounds


def whole(tokens: Sequence[int], stops: Sequence[str]) -> tuple[str, str, int]:
    """The text, why it ends and after how many tokens, by searching in the text so far."""
    seen, before = b"", 0  # since an unused id, and how much stands before that
    visible: list[tuple[int, bool]] = []
    for count, token in enumerate(tokens, 1):
        matched = TEXTS.matched[token]
        if matched is None:
            seen, before = b"", len(visible)
            continue
        seen += matched
        visible += [(byte, bool(TEXTS.visible[token])) for byte in matched]
        found = [(seen.find(s) + len(s), -len(s)) for s in (s.encode() for s in stops) if s in seen]
        if found:
            end, length = min(found)
            kept = visible[: before + end + length]
            return as_text(kept), "stop_string", count
    return as_text(visible), "length", len(tokens)


def as_text(pairs: Sequence[tuple[int, bool]]) -> str:
    return bytes(byte for byte, shown in pairs if shown).decode(errors="replace")


TOKENS = st.lists(st.integers(0, len(TEXTS.visible) - 1), min_size=1, max_size=24)
STOPS = st.lists(st.text("abcé<|s>", min_size=1, max_size=4) | st.just(SPECIAL), max_size=3)


@given(TOKENS, STOPS, st.integers(1, 5))
@settings(max_examples=400)
def test_a_stream_grows_into_the_text_before_its_first_stop(
    tokens: list[int], stops: list[str], chunk: int
) -> None:
    rounds = streamed(tokens, stops, chunk)
    text, finish, count = whole(tokens, stops)
    assert (rounds[-1].text, rounds[-1].finish) == (text, finish)
    assert rounds[-1].tokens == tokens[:count]
    for earlier, later in itertools.pairwise(rounds):
        assert later.text.startswith(earlier.text)
    # No more is held back than what begins a stop string, or a character.
    most = max((len(s.encode()) for s in stops), default=1) + 3
    for so_far in rounds[:-1]:
        shown = whole(so_far.tokens, [])[0]
        assert len(shown) - len(so_far.text) < most


@pytest.mark.parametrize(
    ("tokens", "stops", "texts", "finish"),
    [
        # A special token between the halves of a stop breaks it, in the stream and at the end.
        ([A, MARK, B, C, AB], ["ab"], ["", "a", "ab", "abc", "abc"], "stop_string"),
        ([A, UNUSED, B, C, AB], ["ab"], ["", "a", "ab", "abc", "abc"], "stop_string"),
        # A special token's own text stops, and so does a stop that has one inside.
        ([A, C, MARK, B], [SPECIAL], ["a", "ac", "ac"], "stop_string"),
        ([A, C, MARK, B, A], [f"c{SPECIAL}b"], ["a", "a", "a", "a"], "stop_string"),
        ([A, C, MARK, A], [f"c{SPECIAL}b"], ["a", "a", "a", "aca"], "length"),
        # The string that ends first counts; of several that end there, the longest.
        ([A, B, C], ["bc", "abcd"], ["", "", "a"], "stop_string"),
        ([C, AB], ["b", "ab", "cabx"], ["", "c"], "stop_string"),
        # Half a character waits for the other half, and is replaced at the end.
        ([C3, A9, C3], [], ["", "é", "é\ufffd"], "length"),
        ([A, C3, A9, B], ["éb"], ["a", "a", "a", "a"], "stop_string"),
        ([C3, A, B], ["ab"], ["", "", "\ufffd"], "stop_string"),
    ],
)
def test_a_stream_by_hand(
    tokens: list[int], stops: list[str], texts: list[str], finish: str
) -> None:
    rounds = streamed(tokens, stops, chunk=1)
    assert [so_far.text for so_far in rounds] == texts
    assert [so_far.finish for so_far in rounds] == ["running"] * (len(texts) - 1) + [finish]
    assert streamed(tokens, stops, chunk=len(tokens))[-1] == rounds[-1]


def test_a_text_that_ends_on_a_stop_token_is_whole() -> None:
    (end,) = streamed([C, A], ["ab"], chunk=2, finish=STOP_TOKEN)
    assert (end.text, end.finish) == ("ca", FINISH_NAMES[STOP_TOKEN])
