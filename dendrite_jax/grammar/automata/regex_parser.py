"""A parser for the regular part of the usual regex syntax.

The dialect is JSON Schema's: `\\d` and `\\w` are ASCII, `\\s` is Unicode white space, `.` is any
character but a newline. Greedy and lazy repetition match the same texts, and groups capture
nothing. What is not regular, or reads differently in different engines, is refused by name.
"""

from __future__ import annotations

from dendrite_jax.grammar.automata import charset
from dendrite_jax.grammar.automata.charset import CharSet
from dendrite_jax.grammar.automata.regex_ast import Anchor, Chars, Concat, Node, Repeat, union
from dendrite_jax.grammar.errors import GrammarError

MAX_REPEAT = 100_000

_CONTROL_ESCAPES = {"n": 10, "r": 13, "t": 9, "f": 12, "v": 11, "a": 7}
_CLASS_ESCAPES = {"d": charset.DIGIT, "w": charset.WORD, "s": charset.SPACE}
_HEX_LENGTHS = {"x": 2, "u": 4, "U": 8}
_REFUSED_ESCAPES = {
    "b": "word boundaries",
    "B": "word boundaries",
    "A": "the anchor \\A (write ^)",
    "z": "the anchor \\z (write $)",
    "Z": "the anchor \\Z (write $)",
    "G": "the anchor \\G",
    "p": "Unicode property classes",
    "P": "Unicode property classes",
    "k": "backreferences",
}
_REFUSED_GROUPS = {
    "?=": "lookahead",
    "?!": "lookahead",
    "?<=": "lookbehind",
    "?<!": "lookbehind",
    "?P=": "backreferences",
    "?P>": "recursion",
    "?>": "atomic groups",
    "?(": "conditionals",
    "?#": "comments",
}
_CLASS_OPERATORS = ("&&", "--", "~~")


def parse_regex(pattern: str) -> Node:
    """The syntax tree of `pattern`.

    Raises:
        GrammarError: the pattern is malformed or not supported; `place` is the offset.
    """
    parser = _Parser(pattern)
    node = parser.alternation(dot_all=parser.take("(?s)"))
    if parser.position < len(pattern):
        raise parser.error("unmatched ')'")
    return node


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.position = 0

    def error(self, reason: str, position: int | None = None) -> GrammarError:
        place = self.position if position is None else position
        return GrammarError(f"{reason} in regex {self.pattern!r}", f"offset {place}")

    def peek(self, text: str) -> bool:
        return self.pattern.startswith(text, self.position)

    def take(self, text: str) -> bool:
        found = self.peek(text)
        if found:
            self.position += len(text)
        return found

    def at_end(self) -> bool:
        return self.position >= len(self.pattern)

    def next(self, what: str) -> str:
        if self.at_end():
            raise self.error(f"{what} is unfinished")
        char = self.pattern[self.position]
        self.position += 1
        return char

    def alternation(self, dot_all: bool) -> Node:
        options = [self.sequence(dot_all)]
        while self.take("|"):
            options.append(self.sequence(dot_all))
        return union(*options)

    def sequence(self, dot_all: bool) -> Node:
        parts: list[Node] = []
        while not self.at_end() and not self.peek("|") and not self.peek(")"):
            start = self.position
            atom = self.atom(dot_all)
            parts.append(self.quantified(atom, start))
        return parts[0] if len(parts) == 1 else Concat(tuple(parts))

    def quantified(self, atom: Node, start: int) -> Node:
        while not self.at_end():
            bounds = self.quantifier()
            if bounds is None:
                return atom
            if isinstance(atom, Anchor):
                raise self.error("a repeated anchor is not supported", start)
            if self.peek("+"):
                raise self.error("possessive repetition is not supported", start)
            self.take("?")
            atom = Repeat(atom, *bounds)
        return atom

    def quantifier(self) -> tuple[int, int | None] | None:
        if self.take("*"):
            return 0, None
        if self.take("+"):
            return 1, None
        if self.take("?"):
            return 0, 1
        if not self.peek("{"):
            return None
        start = self.position
        end = self.pattern.find("}", start)
        low, comma, high = self.pattern[start + 1 : end].partition(",")
        if end < 0 or not _is_number(low) or not (high == "" or _is_number(high)):
            raise self.error("a repetition is written {n}, {n,} or {n,m}", start)
        self.position = end + 1
        least = _count(low)
        most = least if not comma else _count(high) if high else None
        if most is not None and most < least:
            raise self.error(f"repetition {{{least},{most}}} has no count", start)
        if max(least, most or 0) > MAX_REPEAT:
            raise self.error(f"repetition count is over the limit of {MAX_REPEAT}", start)
        return least, most

    def atom(self, dot_all: bool) -> Node:
        start = self.position
        char = self.next("regex")
        if char == "(":
            return self.group(dot_all, start)
        if char == "[":
            return Chars(self.bracket_class(start))
        if char == ".":
            return Chars(charset.ANY if dot_all else charset.NOT_NEWLINE)
        if char == "^":
            return Anchor.START
        if char == "$":
            return Anchor.END
        if char in "*+?{":
            raise self.error(f"nothing to repeat before {char!r}", start)
        if char == "\\":
            return Chars(self.escape(start))
        return Chars(_single(ord(char)))

    def group(self, dot_all: bool, start: int) -> Node:
        for opening, name in _REFUSED_GROUPS.items():
            if self.peek(opening):
                raise self.error(f"{name} are not regular and not supported", start)
        if self.take("?P<") or self.take("?<"):
            end = self.pattern.find(">", self.position)
            if end < 0 or not self.pattern[self.position : end].isidentifier():
                raise self.error("a group name is written (?P<name>...)", start)
            self.position = end + 1
        elif self.take("?s:"):
            dot_all = True
        elif self.peek("?") and not self.take("?:"):
            flags = self.pattern[self.position + 1 : self.position + 2]
            raise self.error(
                f"inline flag {flags!r} is not supported here (only (?s:...) is)", start
            )
        body = self.alternation(dot_all)
        if not self.take(")"):
            raise self.error("missing ')'", start)
        return body

    def escape(self, start: int) -> CharSet:
        char = self.next("escape")
        if char in _CONTROL_ESCAPES:
            return _single(_CONTROL_ESCAPES[char])
        if char.lower() in _CLASS_ESCAPES:
            chars = _CLASS_ESCAPES[char.lower()]
            return charset.complement(chars) if char.isupper() else chars
        if char in _HEX_LENGTHS:
            return _single(self.hex_code(_HEX_LENGTHS[char], start))
        if char in _REFUSED_ESCAPES:
            raise self.error(f"{_REFUSED_ESCAPES[char]} are not supported", start)
        if char.isdigit():
            raise self.error("backreferences and octal escapes are not supported", start)
        if char.isalpha():
            raise self.error(f"unknown escape \\{char}", start)
        return _single(ord(char))

    def hex_code(self, length: int, start: int) -> int:
        if self.take("{"):
            end = self.pattern.find("}", self.position)
            digits = self.pattern[self.position : max(end, self.position)]
            self.position = end + 1
        else:
            digits = self.pattern[self.position : self.position + length]
            self.position += length
            if len(digits) < length:
                digits = ""
        try:
            code = int(digits, 16) if digits.isalnum() else -1
        except ValueError:
            code = -1
        if not 0 <= code <= charset.MAX_CODE_POINT:
            raise self.error("a hexadecimal escape is written \\xHH, \\uHHHH or \\u{H...}", start)
        if charset.FIRST_SURROGATE <= code <= charset.LAST_SURROGATE:
            raise self.error(f"surrogate U+{code:04X} is not a character", start)
        return code

    def bracket_class(self, start: int) -> CharSet:
        negated = self.take("^")
        ranges: list[tuple[int, int]] = []
        first = True
        while first or not self.peek("]"):
            if any(self.peek(operator) for operator in _CLASS_OPERATORS):
                raise self.error(f"set operator {self.pattern[self.position] * 2!r} in a class")
            low = self.class_item(start)
            if self.peek("-") and self.pattern[self.position + 1 : self.position + 2] != "]":
                ranges.append(self.class_range(low, start))
            else:
                ranges += low
            first = False
        self.position += 1
        chars = charset.normalise(ranges)
        chars = charset.complement(chars) if negated else chars
        if not chars:
            raise self.error("character class is empty", start)
        return chars

    def class_range(self, low: CharSet, start: int) -> tuple[int, int]:
        place = self.position
        self.position += 1
        high = self.class_item(start)
        if len(low) != 1 or len(high) != 1 or low[0][0] != low[0][1] or high[0][0] != high[0][1]:
            raise self.error("the ends of a range in a class must be single characters", place)
        if low[0][0] > high[0][0]:
            raise self.error("range in a class runs backwards", place)
        return low[0][0], high[0][0]

    def class_item(self, start: int) -> CharSet:
        place = self.position
        if self.at_end():
            raise self.error("character class has no ']'", start)
        char = self.next("character class")
        if char == "\\":
            return self.escape(place)
        if char == "[":
            raise self.error("a class in a class is not supported (write \\[ for a bracket)", place)
        return _single(ord(char))


def _single(code_point: int) -> CharSet:
    return ((code_point, code_point),)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _count(digits: str) -> int:
    """The number, or one over the limit where there are too many digits to tell."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= len(str(MAX_REPEAT)) else MAX_REPEAT + 1
