"""The decimal numerals of the numbers in an interval.

Without bounds a number may have any of JSON's spellings. With one it is written without exponent,
and otherwise in every way: digits after the point may end in zeros, and a numeral is taken exactly
where its value is in the interval; only zero has no minus sign then. Integers have neither point
nor exponent. A multiple has no more digits after the point than the number that it is a multiple
of, and a single value two spellings: see `multiples` and `number_automata`.
"""

from __future__ import annotations

import dataclasses
from decimal import Decimal

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.automata.dfa_algebra import regex_dfa
from dendrite_jax.grammar.automata.machine import machine_dfa
from dendrite_jax.grammar.automata.minimise import minimise
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES, Nfa
from dendrite_jax.grammar.automata.regex_parser import parse_regex

_WHOLE = "-?(?:0|[1-9][0-9]*)"
_POINT = "."


def integers(low: int | None, high: int | None, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The integers from `low` to `high`, None for no bound; nothing when low > high."""
    if low is None and high is None:
        return regex_dfa(parse_regex(_WHOLE))
    return _signed(
        None if low is None else Bound(Decimal(low)),
        None if high is None else Bound(Decimal(high)),
        _Digits(False, max_states),
    )


def numbers(low: Bound | None, high: Bound | None, max_states: int = DEFAULT_MAX_STATES) -> Dfa:
    """The numbers between two bounds, None for no bound; nothing when there are none."""
    if low is None and high is None:
        return regex_dfa(parse_regex(_WHOLE + r"(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"))
    return _signed(low, high, _Digits(True, max_states))


@dataclasses.dataclass(frozen=True)
class Bound:
    """One end of an interval, and whether it is excluded."""

    value: Decimal
    excluded: bool = False

    @property
    def magnitude(self) -> Bound:
        """The bound without its sign."""
        return Bound(self.value.copy_abs(), self.excluded)


def decimal_text(value: Decimal) -> str:
    """The shortest decimal numeral of a value, without exponent."""
    if not value:
        return "0"
    text = format(value, "f")
    return text.rstrip("0").rstrip(_POINT) if _POINT in text else text


@dataclasses.dataclass(frozen=True)
class _Digits:
    """How magnitudes are written: whether a point may come, and the largest automaton."""

    point: bool
    max_states: int

    def between(self, low: Bound, high: Bound | None) -> Dfa:
        """The magnitudes of an interval."""
        machine = _Magnitudes(low, high, self.point)
        alphabet = "0123456789" + _POINT
        return machine_dfa(_START, machine.step, machine.accepts, alphabet, self.max_states)


def _signed(low: Bound | None, high: Bound | None, digits: _Digits) -> Dfa:
    """The numerals of an interval, the negative ones with their sign."""
    nfa = Nfa(digits.max_states)
    start, end = nfa.state(), nfa.state()
    zero = Decimal(0)
    if low is None or low.value < 0:
        inner = Bound(zero, excluded=True)
        if high is not None and high.value < 0:
            inner = high.magnitude
        magnitudes = digits.between(inner, None if low is None else low.magnitude)
        nfa.move(nfa.append_dfa(magnitudes, nfa.append_bytes(b"-", start)), end)
    if high is None or high.value >= 0:
        inner = Bound(zero) if low is None or low.value < 0 else low
        nfa.move(nfa.append_dfa(digits.between(inner, high), start), end)
    return minimise(nfa.determinise(start, end))


@dataclasses.dataclass(frozen=True)
class _State:
    """What has been read of a magnitude.

    Attributes:
        digits: how many digits of the whole part, or after the point; not counted on where the
            count no longer matters.
        low: how the digits so far compare with the bound's first digits (-1, 0 or 1).
        high: the same for the upper bound.
        after_point: whether the point has been read.
        only_zero: whether the whole part is 0, which no digit follows.
    """

    digits: int = 0
    low: int = 0
    high: int = 0
    after_point: bool = False
    only_zero: bool = False


_START = _State()


class _Magnitudes:
    """Reads a numeral without sign, and compares it with the bounds digit by digit."""

    def __init__(self, low: Bound, high: Bound | None, point: bool) -> None:
        self._low_whole, _, self._low_fraction = decimal_text(low.value).partition(_POINT)
        self._high_whole, _, self._high_fraction = (
            ("", "", "") if high is None else decimal_text(high.value).partition(_POINT)
        )
        self._low, self._high, self._point = low, high, point
        self._whole_digits = max(len(self._low_whole), len(self._high_whole)) + 1
        self._fraction_digits = max(len(self._low_fraction), len(self._high_fraction), 1)

    def step(self, state: _State, char: str) -> _State | None:
        if char == _POINT:
            whole = self._compared(state)
            if state.after_point or not self._point or not state.digits or whole is None:
                return None
            return whole
        return self._fraction(state, char) if state.after_point else self._whole(state, char)

    def accepts(self, state: _State) -> bool:
        if not state.digits:
            return False
        if state.after_point:
            return self._inside(state)
        whole = self._compared(state)
        return whole is not None and self._inside(whole)

    def _whole(self, state: _State, char: str) -> _State | None:
        if state.only_zero or (self._high and state.digits >= len(self._high_whole)):
            return None
        return _State(
            min(state.digits + 1, self._whole_digits),
            state.low or _compare(char, self._low_whole, state.digits),
            state.high or _compare(char, self._high_whole, state.digits),
            only_zero=state.digits == 0 and char == "0",
        )

    def _compared(self, state: _State) -> _State | None:
        """The state after the point, before digits; None where the whole part is outside."""
        low = _order(state.digits, len(self._low_whole)) or state.low
        high = -1
        if self._high is not None:
            high = _order(state.digits, len(self._high_whole)) or state.high
        return None if low < 0 or high > 0 else _State(0, low, high, after_point=True)

    def _fraction(self, state: _State, char: str) -> _State | None:
        low = state.low or _compare(char, self._low_fraction, state.digits, "0")
        high = state.high or _compare(char, self._high_fraction, state.digits, "0")
        if low < 0 or high > 0:
            return None
        # Away from both bounds all digits are free.
        counted = self._fraction_digits if low and high else state.digits + 1
        return _State(min(counted, self._fraction_digits), low, high, after_point=True)

    def _inside(self, state: _State) -> bool:
        """Whether the value is in the interval if no digit follows; none after the point is 0."""
        if state.low == 0 and (state.digits < len(self._low_fraction) or self._low.excluded):
            return False
        if state.high == 0 and self._high is not None:
            return state.digits < len(self._high_fraction) or not self._high.excluded
        return True


def _compare(char: str, digits: str, index: int, beyond: str = "") -> int:
    """The order of a digit and the one at `index`, which is `beyond` after the last."""
    other = digits[index] if index < len(digits) else beyond
    return (char > other) - (char < other)


def _order(a: int, b: int) -> int:
    return (a > b) - (a < b)
