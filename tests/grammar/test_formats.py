"""Dates and times, by enumeration against Python's calendar."""

from __future__ import annotations

import datetime
import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from dendrite_jax.grammar.automata.dfa import DEAD, START, Dfa
from dendrite_jax.grammar.compiler import byte_automaton
from dendrite_jax.grammar.grammar import Grammar

# With the fractions of a second and letters that RFC 3339 allows beside the plain form.
OFFSETS = ["Z", "z", "+00:00", "-00:00", "+01:00", "-00:01", "+23:59", "-15:30", "+00:01", "+13:00"]
BAD_OFFSETS = ["", "+24:00", "-00:60", "+0000", "+00", "00:00"]


def _format(name: str) -> Dfa:
    return byte_automaton(Grammar.from_json_schema({"type": "string", "format": name}))


def _accepted(dfa: Dfa, *parts: str | tuple[NDArray[np.int64], int]) -> NDArray[np.bool_]:
    """For each row whether the text is accepted: constant parts, and numbers with their digits."""
    dense = np.vstack([dfa.dense(), np.full((1, 256), DEAD)])
    state: NDArray[np.int64] = np.array(START)
    for part in ('"', *parts, '"'):
        if isinstance(part, str):
            columns = [np.array(byte) for byte in part.encode()]
        else:
            numbers, width = part
            columns = [numbers // 10**i % 10 + ord("0") for i in reversed(range(width))]
        for column in columns:
            state = dense[state, column]
    return np.append(dfa.accept, False)[state]


def _month_lengths() -> NDArray[np.int64]:
    """i64[10000, 14]: the days of the months 0 … 13; the calendar repeats after 400 years."""
    lengths = np.zeros((10_000, 14), np.int64)
    for year, month in itertools.product(range(400, 9999), range(1, 13)):
        first = datetime.date(year, month, 1)
        after = datetime.date(year + month // 12, month % 12 + 1, 1)
        lengths[year, month] = (after - first).days
    lengths[:400], lengths[9999] = lengths[400:800], lengths[9599]
    return lengths


MONTH_LENGTHS = _month_lengths()


def test_every_date_of_ten_thousand_years() -> None:
    year, month, day = np.ogrid[0:10_000, 0:14, 0:33]
    accepted = _accepted(_format("date"), (year, 4), "-", (month, 2), "-", (day, 2))
    expected = (day >= 1) & (day <= MONTH_LENGTHS[:, :, None])
    np.testing.assert_array_equal(accepted, expected)
    assert expected[1:].sum() == datetime.date.max.toordinal()


@pytest.mark.parametrize("offset", OFFSETS)
@pytest.mark.parametrize("fraction", ["", ".0", ".123456789"])
def test_every_second_of_a_day(offset: str, fraction: str) -> None:
    hour, minute, second = np.ogrid[0:26, 0:62, 0:62]
    accepted = _accepted(
        _format("time"), (hour, 2), ":", (minute, 2), ":", (second, 2), fraction + offset
    )
    proper = (hour < 24) & (minute < 60)
    # A leap second is the 23:59:60 of UTC, and taken where it is written in UTC.
    in_utc = offset in OFFSETS[:4]
    leap = (hour == 23) & (minute == 59) & (second == 60) & in_utc
    np.testing.assert_array_equal(accepted, (proper & (second < 60)) | leap)
    for found in np.argwhere(accepted & (second == 60)):
        text = f"{found[0]:02}:{found[1]:02}:59{offset.upper()}"
        local = datetime.datetime.fromisoformat(f"2016-12-31T{text}")
        assert local.astimezone(datetime.UTC).strftime("%H:%M") == "23:59"


@pytest.mark.parametrize("offset", BAD_OFFSETS)
def test_times_without_a_proper_offset_are_refused(offset: str) -> None:
    for name, date in (("time", ""), ("date-time", "2024-02-29T")):
        assert not _format(name).matches(f'"{date}10:20:30{offset}"'.encode())


def test_a_time_needs_digits_after_its_point() -> None:
    assert not _format("time").matches(b'"10:20:30.Z"')
    assert not _format("date-time").matches(b'"2024-02-29T10:20:30.Z"')


@pytest.mark.parametrize(
    ("time", "leap"),
    [
        ("T00:00:00Z", False),
        ("t23:59:59.5-12:30", False),
        ("T23:59:60Z", True),
        ("t23:59:60.25z", True),
        ("T23:59:60-00:00", True),
    ],
)
def test_date_times_are_a_date_and_a_time(time: str, leap: bool) -> None:
    year, month, day = np.ogrid[1896:2105, 0:14, 0:33]
    accepted = _accepted(_format("date-time"), (year, 4), "-", (month, 2), "-", (day, 2), time)
    expected = (day >= 1) & (day <= MONTH_LENGTHS[1896:2105, :, None])
    if leap:
        last = day == MONTH_LENGTHS[1896:2105, :, None]
        expected &= last & ((month == 6) | (month == 12))
    np.testing.assert_array_equal(accepted, expected)


@pytest.mark.parametrize(
    "text",
    [
        "2016-12-31T23:58:60Z",
        "2016-12-31T22:59:60Z",
        "2016-12-31T24:00:00Z",
        "2016-12-31T23:59:61Z",
        "2016-12-31T23:59:60+01:00",
        "2016-12-31 23:59:59Z",
        "2016-12-31T23:59:59",
    ],
)
def test_other_date_times_are_refused(text: str) -> None:
    assert not _format("date-time").matches(f'"{text}"'.encode())
