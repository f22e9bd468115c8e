"""Which differences to llguidance are those that test_differences.py names."""

from __future__ import annotations

import re

from grammar.oracle import Excuse, no_excuse

# Bounds and multiples whose values llguidance does not all write, or zero of whose it signs.
_NUMBERS = {
    "integer over zero",
    "integer range and multiple",
    "number fraction range",
    "number within one",
    "number over zero",
    "number below zero",
    "number negative minimum",
    "number maximum",
    "number maximum zero",
    "number negative maximum",
    "number exclusive",
    "number exclusive minimum",
    "number exclusive fractions",
    "number multiple hundredths",
}
_DATES = {"date", "time", "date-time"}
_MINUS_ZERO = re.compile(rb"-(0(\.0*)?)?")


def excuse_for(name: str) -> Excuse:
    """The excuse for one of `SCHEMAS`."""
    if name in _DATES:
        return _date
    return _number if name in _NUMBERS else no_excuse


def _date(text: bytes, ours: bool) -> bool:
    """What llguidance alone takes: test_formats.py says which dates and times there are."""
    return not ours


def _number(text: bytes, ours: bool) -> bool:
    """Spellings that llguidance leaves out: test_numbers.py says which are right."""
    return ours or _MINUS_ZERO.fullmatch(text) is not None
