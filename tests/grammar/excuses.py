"""Which differences to llguidance are those that test_differences.py names."""

from __future__ import annotations

import re

from grammar.oracle import Excuse

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
_FORCED_TEXTS = {"names with escapes", "const escapes"}
_MINUS_ZERO = re.compile(rb"-(0(\.0*)?)?")


_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{0,4})|.)", re.DOTALL)
_CONTROL = [b"%04x" % code for code in (*range(0x20), 0x7F)]


def excuse_for(name: str) -> Excuse:
    """The excuse for one of `SCHEMAS`."""
    if name in _DATES:
        return _date
    if name in _NUMBERS:
        return _number
    return _forced_text if name in _FORCED_TEXTS else spelling


def spelling(text: bytes, ours: bool) -> bool:
    """DEL as it is, and escapes of characters beyond ASCII: test_strings.py has them all."""
    if not ours:
        return False
    escapes = [found[1].lower() for found in _ESCAPE.finditer(text) if found[1] is not None]
    return b"\x7f" in text or any(
        not any(code.startswith(digits) for code in _CONTROL) for digits in escapes
    )


def _forced_text(text: bytes, ours: bool) -> bool:
    """Escapes in a text that llguidance writes in one way."""
    return ours and b"\\" in text


def _date(text: bytes, ours: bool) -> bool:
    """What llguidance alone takes: test_formats.py says which dates and times there are."""
    return not ours


def _number(text: bytes, ours: bool) -> bool:
    """Spellings that llguidance leaves out: test_numbers.py says which are right."""
    return ours or _MINUS_ZERO.fullmatch(text) is not None
