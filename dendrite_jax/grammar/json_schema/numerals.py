"""Regular expressions of the decimal numerals within bounds.

Integers are written canonically. A bounded number is written without exponent; the spellings of the
bounds themselves (how many trailing zeros a fraction may have) follow llguidance.
"""

from __future__ import annotations

import decimal

from dendrite_jax.grammar.automata.regex_ast import (
    EMPTY,
    Chars,
    Node,
    Repeat,
    concat,
    literal,
    optional,
    union,
)

_MINUS = literal("-")
_POINT = literal(".")


def _digit(low: int | str, high: int | str) -> Node:
    return Chars(((ord("0") + int(low), ord("0") + int(high)),))


_NOTHING = union()
_DIGIT = _digit(0, 9)
_DIGITS = Repeat(_DIGIT, 0, None)
_ANY_WHOLE = union(literal("0"), concat(_digit(1, 9), _DIGITS))
_ANY_FRACTION = optional(concat(_POINT, Repeat(_DIGIT, 1, None)))
_ANY_EXPONENT = optional(
    concat(
        Chars(((ord("E"), ord("E")), (ord("e"), ord("e")))),
        optional(Chars(((ord("+"), ord("+")), (ord("-"), ord("-"))))),
        Repeat(_DIGIT, 1, None),
    )
)


def integers(low: int | None, high: int | None) -> Node:
    """The integers from `low` to `high`, None for no bound; nothing when low > high."""
    if low is None and high is None:
        return concat(optional(_MINUS), _ANY_WHOLE)
    options = []
    if low is None or low < 0:
        if high is not None and high < 0:
            nearest = -high
        else:
            # "-0" is written only where both bounds are given.
            nearest = 1 if low is None or high is None else 0
        options.append(concat(_MINUS, _naturals(nearest, None if low is None else -low)))
    if high is None or high >= 0:
        options.append(_naturals(max(low or 0, 0), high))
    return union(*options)


def _naturals(low: int, high: int | None) -> Node:
    """Canonical numerals of [low, high], where low ≥ 0."""
    if high is not None and low > high:
        return _NOTHING
    first = str(low)
    if high is None:
        longer = concat(_digit(1, 9), Repeat(_DIGIT, len(first), None))
        return union(_between(first, "9" * len(first)), longer)
    last = str(high)
    return union(
        *(
            _between(
                first if length == len(first) else "1" + "0" * (length - 1),
                last if length == len(last) else "9" * length,
            )
            for length in range(len(first), len(last) + 1)
        )
    )


def _between(low: str, high: str) -> Node:
    """Digit strings from `low` to `high`, which have one length."""
    if set(low) <= {"0"} and set(high) <= {"9"}:
        return Repeat(_DIGIT, len(low), len(low))
    rest = len(low) - 1
    if low[0] == high[0]:
        return concat(literal(low[0]), _between(low[1:], high[1:]))
    return union(
        concat(literal(low[0]), _between(low[1:], "9" * rest)),
        concat(_digits_inside(low, high), Repeat(_DIGIT, rest, rest)),
        concat(literal(high[0]), _between("0" * rest, high[1:])),
    )


def _digits_inside(low: str, high: str) -> Node:
    """The digits strictly between the first digits of two strings."""
    first, last = int(low[0]) + 1, int(high[0]) - 1
    return _digit(first, last) if first <= last else _NOTHING


def _digits_above(digit: str) -> Node:
    return _digit(int(digit) + 1, 9) if digit < "9" else _NOTHING


def numbers(low: float | None, high: float | None, low_excluded: bool, high_excluded: bool) -> Node:
    """The numbers between two bounds, None for no bound; nothing when there are none."""
    if low is None and high is None:
        return concat(optional(_MINUS), _ANY_WHOLE, _ANY_FRACTION, _ANY_EXPONENT)
    if low is not None and high is not None:
        if low > high or (low == high and (low_excluded or high_excluded)):
            return _NOTHING
        if low == high:
            return literal(decimal_text(low))
    options = []
    if low is None or low < 0:
        # The magnitudes of the negative numbers; zero is not among them.
        if high is None or high >= 0:
            inner, inner_excluded = 0.0, True
        else:
            inner, inner_excluded = -high, high_excluded
        outer = None if low is None else -low
        options.append(concat(_MINUS, _magnitudes(inner, outer, inner_excluded, low_excluded)))
    if high is None or high > 0:
        inner, inner_excluded = (0.0, False) if low is None or low < 0 else (low, low_excluded)
        options.append(_magnitudes(inner, high, inner_excluded, high_excluded))
    elif high == 0 and not high_excluded:
        options.append(literal("0"))
    return union(*options)


def _magnitudes(low: float, high: float | None, low_excluded: bool, high_excluded: bool) -> Node:
    """The numbers of an interval with 0 ≤ low < high."""
    whole, fraction = _parts(low)
    if high is None:
        digits = len(str(whole))
        longer = concat(_digit(1, 9), Repeat(_DIGIT, digits, None), _ANY_FRACTION)
        return union(_magnitudes(low, 10.0**digits, low_excluded, True), longer)
    last_whole, last_fraction = _parts(high)
    if whole == last_whole:
        width = max(len(fraction), len(last_fraction))
        inside = _fractions_between(
            fraction.ljust(width, "0"), last_fraction.ljust(width, "0"), low_excluded, high_excluded
        )
        suffix = concat(_POINT, inside)
        may_be_whole = not fraction and not low_excluded
        return concat(literal(str(whole)), optional(suffix) if may_be_whole else suffix)
    options = []
    if fraction or low_excluded:
        options.append(concat(literal(str(whole)), _POINT, _fractions_from(fraction, low_excluded)))
        whole += 1
    if whole < last_whole:
        options.append(concat(_naturals(whole, last_whole - 1), _ANY_FRACTION))
    if last_fraction:
        suffix = concat(_POINT, _fractions_to(last_fraction, high_excluded))
        options.append(concat(literal(str(last_whole)), optional(suffix)))
    elif not high_excluded:
        zeros = concat(_POINT, Repeat(literal("0"), 1, None))
        options.append(concat(literal(str(last_whole)), optional(zeros)))
    return union(*options)


def _fractions_from(digits: str, excluded: bool) -> Node:
    """Digits after the point of the fractions that are at least (above, if excluded) `digits`."""
    if not digits:
        return concat(_DIGITS, _digit(1, 9)) if excluded else _DIGITS
    return union(
        concat(literal(digits[0]), _fractions_from(digits[1:], excluded)),
        concat(_digits_above(digits[0]), _DIGITS),
    )


def _fractions_to(digits: str, excluded: bool) -> Node:
    """Digits after the point of the fractions that are at most (below, if excluded) `digits`."""
    if not digits:
        return EMPTY
    below = _digit(0, int(digits[0]) - 1) if digits[0] > "0" else _NOTHING
    options = [concat(below, _DIGITS)]
    if len(digits) > 1 or not excluded:
        options.append(concat(literal(digits[0]), _fractions_to(digits[1:], excluded)))
    return union(*options)


def _fractions_between(low: str, high: str, low_excluded: bool, high_excluded: bool) -> Node:
    """The same between two different digit strings of one length."""
    if low[0] == high[0]:
        rest = _fractions_between(low[1:], high[1:], low_excluded, high_excluded)
        return concat(literal(low[0]), rest)
    options = [
        concat(literal(low[0]), _fractions_from(low[1:].rstrip("0"), low_excluded)),
        concat(_digits_inside(low, high), _DIGITS),
    ]
    rest_of_high = high[1:].rstrip("0")
    if rest_of_high or not high_excluded:
        options.append(concat(literal(high[0]), _fractions_to(rest_of_high, high_excluded)))
    return union(*options)


def decimal_text(value: float) -> str:
    """The shortest decimal numeral of a float, without exponent."""
    text = format(decimal.Decimal(repr(value)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _parts(value: float) -> tuple[int, str]:
    """The whole part and the digits after the point of a number that is not negative."""
    whole, _, fraction = decimal_text(value).partition(".")
    return int(whole), fraction
