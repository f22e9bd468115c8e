"""Finds rules of a Lark grammar that can never end, which llguidance accepts.

A rule such as `start: "a" start` has no finite text: its masks would allow tokens for ever. The
check reads llguidance's Lark dialect only as far as it needs to; what it does not know counts as
able to end.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable

from dendrite_jax.grammar.errors import GrammarError

_HEAD = re.compile(
    r"^[?!]?(?P<name>[a-zA-Z_]\w*)(?:\[[^\]]*\])?(?:\.-?\d+)?[ \t]*:(?!:)", re.MULTILINE
)
_DIRECTIVE = re.compile(r"^%", re.MULTILINE)
_SPACE = re.compile(r"(?:\s|//[^\n]*|#[^\n]*)*")
_TERMINAL = re.compile(
    r'"(?:\\.|[^"\\\n])*"i?|/(?:\\.|[^/\\\n])+/[a-z]*|<[^>\n]*>|@\w+|\d+|\.\.|[!,.=&~^-]'
)
_NAME = re.compile(r"[a-zA-Z_]\w*")
_COUNT = re.compile(r"\{\s*(\d*)[^{}]*\}|~\s*(\d+)(?:\s*\.\.\s*\d+)?")
_EMBEDDED = re.compile(r"%[a-z]+\s*(?=\{)")

# Whether something can end, given which rules can.
_CanEnd = Callable[[set[str]], bool]


class _UnknownSyntaxError(Exception):
    """The rule uses a notation that the check does not read."""


@dataclasses.dataclass
class _Rule:
    can_end: _CanEnd
    mentions: set[str]


def check_rules_can_end(grammar: str) -> None:
    """Checks the rules that `start` leads to.

    Raises:
        GrammarError: one of them has no finite text; `place` names it.
    """
    rules = _read_rules(grammar)
    ending: set[str] = set()
    while True:
        more = {name for name, rule in rules.items() if rule.can_end(ending)}
        if more == ending:
            break
        ending = more
    reached, stack = {"start"}, ["start"]
    while stack:
        rule = rules.get(stack.pop())
        fresh = (rule.mentions if rule else set()) & set(rules) - reached
        reached |= fresh
        stack += fresh
    for name in rules:
        if name in reached and name not in ending:
            raise GrammarError("the rule requires itself without end", f"rule {name!r}")


def _read_rules(grammar: str) -> dict[str, _Rule]:
    heads = list(_HEAD.finditer(grammar))
    stops = [match.start() for match in _DIRECTIVE.finditer(grammar)]
    stops += [head.start() for head in heads] + [len(grammar)]
    rules = {}
    names = {head["name"] for head in heads}
    for head in heads:
        end = min(stop for stop in stops if stop >= head.end())
        reader = _BodyReader(grammar[head.end() : end], names)
        try:
            can_end = reader.alternatives()
            if reader.position < len(reader.text):
                raise _UnknownSyntaxError
        except _UnknownSyntaxError:
            can_end = _always
        rules[head["name"]] = _Rule(can_end, reader.mentions)
    return rules


def _always(_: set[str]) -> bool:
    return True


class _BodyReader:
    """Reads the body of a rule by recursive descent."""

    def __init__(self, text: str, names: set[str]) -> None:
        self.text = text
        self.names = names
        self.mentions: set[str] = set()
        self.position = 0
        self.take(_SPACE)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        """Consumes a match at this place, and the space after it."""
        found = pattern.match(self.text, self.position)
        if found:
            space = _SPACE.match(self.text, found.end())
            self.position = space.end() if space else found.end()
        return found

    def take_char(self, char: str) -> bool:
        return self.take(re.compile(re.escape(char))) is not None

    def alternatives(self) -> _CanEnd:
        options = [self.sequence()]
        while self.take_char("|"):
            options.append(self.sequence())
        return lambda ending: any(option(ending) for option in options)

    def sequence(self) -> _CanEnd:
        parts = []
        while self.position < len(self.text) and self.text[self.position] not in "|)]":
            if self.text.startswith("->", self.position):
                self.position += 2
                self.take(_SPACE)
                self.take(_NAME)
                continue
            parts.append(self.counted(self.atom()))
        return lambda ending: all(part(ending) for part in parts)

    def counted(self, atom: _CanEnd) -> _CanEnd:
        while True:
            if self.take_char("?") or self.take_char("*"):
                atom = _always
            elif count := self.take(_COUNT):
                if int(count[1] or count[2] or 0) == 0:
                    atom = _always
            elif not self.take_char("+"):
                return atom

    def atom(self) -> _CanEnd:
        for opening, closing in ("()", "[]"):
            if self.take_char(opening):
                inner = self.alternatives()
                if not self.take_char(closing):
                    raise _UnknownSyntaxError
                return inner if opening == "(" else _always
        if self.take(_EMBEDDED):
            try:
                _, length = json.JSONDecoder().raw_decode(self.text[self.position :])
            except ValueError as exc:
                raise _UnknownSyntaxError from exc
            self.position += length
            self.take(_SPACE)
            return _always
        if self.take(_TERMINAL):
            return _always
        name = self.take(_NAME)
        if name is None:
            raise _UnknownSyntaxError
        self.mentions.add(name[0])
        known = name[0] in self.names
        return (lambda ending: name[0] in ending) if known else _always
