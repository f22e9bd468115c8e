"""Writes schemas into a nondeterministic byte automaton, from the first byte to the last."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable, Iterator, Sequence

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.automata.dfa_algebra import (
    difference,
    regex_dfa,
    texts_dfa,
)
from dendrite_jax.grammar.automata.json_quoting import json_quoted
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES, Nfa
from dendrite_jax.grammar.automata.regex_parser import parse_regex
from dendrite_jax.grammar.errors import GrammarError, UnboundedRecursionError
from dendrite_jax.grammar.json_schema.disjoint import certainly_disjoint, pairwise_disjoint
from dendrite_jax.grammar.json_schema.members import item_schema, property_schema
from dendrite_jax.grammar.json_schema.nodes import (
    AnyOf,
    AnyValue,
    Array,
    Boolean,
    Literal,
    Nothing,
    Null,
    Number,
    Object,
    OneOf,
    Ref,
    Schema,
    String,
)
from dendrite_jax.grammar.json_schema.number_automata import number_dfa
from dendrite_jax.grammar.json_schema.options import SchemaOptions
from dendrite_jax.grammar.json_schema.parse import ParsedSchema
from dendrite_jax.grammar.json_schema.strings import any_text_dfa, pattern_dfa, string_dfa

# What "any value" is called where recursion is counted.
_ANYTHING = "any value"
_ANY_OF_ANY = AnyOf((Null(), Boolean(), Number(), String(), Array(), Object()))

# Writes something from a state on and gives the state after it.
_Writer = Callable[[int], int]


class Unsatisfiable(Exception):
    """A subschema allows no value; an optional part that needs one is left out."""


class SchemaEmitter:
    """Appends schemas to `nfa`; white space goes before every token of JSON but the first.

    Attributes:
        nfa: the automaton under construction.
        root: its start.
    """

    def __init__(
        self, parsed: ParsedSchema, options: SchemaOptions, max_depth: int | None, max_states: int
    ) -> None:
        self.definitions = parsed.definitions
        self.options = options
        self.max_depth = max_depth
        # Parts are minimised on their own, and may be larger before than all together are after.
        self.part_states = max(max_states, DEFAULT_MAX_STATES)
        self.nfa = Nfa(max_states)
        self.root = self.nfa.state()
        self._spaces: dict[int, int] = {}
        self._space = None if options.space is None else _lexeme(options.space)
        self._comma = _lexeme(options.item_separator)
        self._colon = _lexeme(options.key_separator)
        # How often each definition is open on the way from the root to here.
        self._open: dict[str, int] = {}

    def emit(self, schema: Schema, source: int) -> int:
        """Appends the texts of `schema`.

        Raises:
            Unsatisfiable: there are none.
        """
        if isinstance(schema, Nothing):
            raise Unsatisfiable(schema.reason)
        if isinstance(schema, AnyValue):
            with self._nested(_ANYTHING):
                return self.emit(_ANY_OF_ANY, source)
        if isinstance(schema, Ref):
            with self._nested(schema.uri):
                return self.emit(self.definitions[schema.uri], source)
        if isinstance(schema, OneOf) and not self._may_be_any_of(schema):
            raise GrammarError(
                "oneOf is supported only where its options are seen to exclude each other "
                "(or with coerce_one_of)",
                schema.place,
            )
        if isinstance(schema, (AnyOf, OneOf)):
            return self._any_of([self._writer(option) for option in schema.options], source)
        if isinstance(schema, Object):
            return self._object(schema, source)
        if isinstance(schema, Array):
            return self._array(schema, source)
        if isinstance(schema, Null):
            return self._text("null", source)
        if isinstance(schema, Boolean):
            texts = ["true", "false"] if schema.value is None else [str(schema.value).lower()]
            return self._any_of([self._text_writer(text) for text in texts], source)
        if isinstance(schema, Number):
            return self._token(number_dfa(schema, self.part_states), source)
        return self._string(schema, source)

    def _may_be_any_of(self, schema: OneOf) -> bool:
        """Whether the options exclude each other, now that every definition has been read."""
        coerced = self.options.coerce_one_of or self.options.lenient
        return coerced or pairwise_disjoint(schema.options, self.definitions)

    def _writer(self, schema: Schema) -> _Writer:
        return functools.partial(self.emit, schema)

    def _text_writer(self, text: str) -> _Writer:
        return functools.partial(self._text, text)

    @contextlib.contextmanager
    def _nested(self, name: str) -> Iterator[None]:
        """Counts the occurrences of a definition inside itself."""
        depth = self._open.get(name, 0)
        if depth and self.max_depth is None:
            raise UnboundedRecursionError(
                f"{name} occurs inside itself, and the grammar has no max_recursion_depth"
                + (
                    " (additionalProperties and items are any value unless a schema says otherwise)"
                    if name == _ANYTHING
                    else ""
                ),
                name if name.startswith("#") else "",
            )
        if self.max_depth is not None and depth > self.max_depth:
            raise Unsatisfiable(f"{name} occurs inside itself more than {self.max_depth} times")
        self._open[name] = depth + 1
        try:
            yield
        finally:
            self._open[name] = depth

    # Tokens of JSON.

    def _spaced(self, source: int) -> int:
        """The state after optional white space; none before the first token."""
        if self._space is None or source == self.root:
            return source
        spaced = self._spaces.get(source)
        if spaced is None:
            spaced = self._spaces[source] = self.nfa.state()
            self.nfa.move(source, spaced)
            self.nfa.move(self.nfa.append_dfa(self._space, source), spaced)
        return spaced

    def _token(self, dfa: Dfa, source: int) -> int:
        if dfa.is_empty:
            raise Unsatisfiable("no text fulfils all of its bounds and patterns")
        return self.nfa.append_dfa(dfa, self._spaced(source))

    def _text(self, text: str, source: int) -> int:
        return self.nfa.append_bytes(text.encode(), self._spaced(source))

    def _string(self, schema: String, source: int) -> int:
        if len(schema.rules) == 1 and isinstance(schema.rules[0], Literal):
            text = schema.rules[0].text
            longest = len(text) if schema.max_length is None else schema.max_length
            if schema.min_length <= len(text) <= longest and _has_one_spelling(text):
                return self._text(f'"{text}"', source)
        escapes = self.options.json_allowed_escapes
        return self._token(string_dfa(schema, escapes, self.part_states), source)

    def _name(self, name: str, source: int) -> int:
        """A listed property's name, in every spelling that a string of this text has."""
        if not _has_one_spelling(name):
            dfa = json_quoted(texts_dfa([name.encode()]), self.options.json_allowed_escapes)
            if not dfa.is_empty:
                return self._token(dfa, source)
        return self._text(json.dumps(name, ensure_ascii=False), source)

    def _any_of(self, options: Sequence[_Writer], source: int) -> int:
        target = self.nfa.state()
        reasons = []
        for write in options:
            try:
                self.nfa.move(write(source), target)
            except Unsatisfiable as exc:
                reasons.append(exc)
        if len(reasons) == len(options):
            raise reasons[0] if reasons else Unsatisfiable("there are no options")
        return target

    # Arrays.

    def _array(self, schema: Array, source: int) -> int:
        if schema.max_items is not None and schema.min_items > schema.max_items:
            raise Unsatisfiable(
                f"minItems ({schema.min_items}) is above maxItems ({schema.max_items})"
            )
        closing = self.nfa.state()
        current = self._text("[", source)
        if schema.min_items == 0:
            self.nfa.move(current, closing)
        count = 0
        limit = schema.max_items
        if limit is None:
            # The last item written is one that may come again.
            limit = max(len(schema.prefix) + 1, schema.min_items)
        while count < limit:
            before = self.nfa.state()
            self.nfa.move(current if count == 0 else self._token(self._comma, current), before)
            try:
                current = self.emit(item_schema(schema, count), before)
            except Unsatisfiable:
                if count < schema.min_items:
                    raise
                break
            count += 1
            if count >= schema.min_items:
                self.nfa.move(current, closing)
        else:
            if schema.max_items is None:
                self.nfa.move(self._token(self._comma, current), before)
        return self._text("]", closing)

    # Objects.

    def _object(self, schema: Object, source: int) -> int:
        members: list[tuple[_Writer, bool]] = []
        names = list(dict.fromkeys([*schema.properties, *schema.required]))
        for name in names:
            value = property_schema(schema, name)
            members.append((self._member_writer(name, value), name in schema.required))
        required = sum(is_required for _, is_required in members)
        least = max(schema.min_properties - required, 0)
        most = None if schema.max_properties is None else schema.max_properties - required
        if least or most is not None:
            members = [member for member in members if member[1] or self._can_write(member[0])]
            if len(members) > required:
                return self._one_optional_member(schema, members, least, most, source)
        rest = self._other_members(schema, names, least, most)
        if rest is not None:
            members.append((rest, least > 0))
        elif least:
            raise Unsatisfiable(f"minProperties is {schema.min_properties}, but no names are left")
        return self._members(members, source)

    def _member_writer(self, name: str, value: Schema) -> _Writer:
        def write(source: int) -> int:
            return self.emit(value, self._token(self._colon, self._name(name, source)))

        return write

    def _can_write(self, write: _Writer) -> bool:
        try:
            write(self.nfa.state())
        except Unsatisfiable:
            return False
        return True

    def _one_optional_member(
        self,
        schema: Object,
        members: list[tuple[_Writer, bool]],
        least: int,
        most: int | None,
        source: int,
    ) -> int:
        """An object of listed properties of which at least, at most or exactly one is optional."""
        others = (*schema.patterns.values(), schema.additional)
        open_ended = not all(certainly_disjoint(s, s, self.definitions) for s in others)
        if least > 1 or most not in (None, 1) or open_ended:
            raise GrammarError(
                "minProperties and maxProperties are supported only where all properties listed "
                "are required, or as 1 where no others are allowed"
            )
        required = [member for member in members if member[1]]
        choices = []
        for chosen in members:
            if chosen[1]:
                continue
            kept = members if most is None else [m for m in members if m[1] or m is chosen]
            choices.append([(write, needed or write is chosen[0]) for write, needed in kept])
        if most == 1 and least == 0:
            choices.append(required)
        return self._any_of(
            [functools.partial(self._members, choice) for choice in choices], source
        )

    def _members(self, members: list[tuple[_Writer, bool]], source: int) -> int:
        """An object of members in this order, each with whether it is required."""
        nfa = self.nfa
        written: list[tuple[int, int, bool]] = []
        for write, required in members:
            entry = nfa.state()
            try:
                written.append((entry, write(entry), required))
            except Unsatisfiable:
                if required:
                    raise
        # coming[i]: member i or a later one comes now. ready[i]: the object may end before i.
        coming = [nfa.state() for _ in range(len(written) + 1)]
        closing = nfa.state()
        ready = [True] * (len(written) + 1)
        for i in reversed(range(len(written))):
            entry, _, required = written[i]
            ready[i] = ready[i + 1] and not required
            nfa.move(coming[i], entry)
            if not required:
                nfa.move(coming[i], coming[i + 1])
        opened = self._text("{", source)
        nfa.move(opened, coming[0])
        if ready[0]:
            nfa.move(opened, closing)
        for i, (_, after, _) in enumerate(written, start=1):
            if i < len(written):
                nfa.move(self._token(self._comma, after), coming[i])
            if ready[i]:
                nfa.move(after, closing)
        return self._text("}", closing)

    def _other_members(
        self, schema: Object, names: list[str], least: int, most: int | None
    ) -> _Writer | None:
        """Writes members that are not listed, None where there can be none."""
        if most is not None and most <= 0:
            return None
        quoted = self.options.json_allowed_escapes
        taken = texts_dfa([name.encode() for name in names])
        free = any_text_dfa()
        kinds = []
        for regex, value in schema.patterns.items():
            matching = pattern_dfa(regex)
            kinds.append((json_quoted(difference(matching, taken), quoted), value))
            free = difference(free, matching)
        kinds.append((json_quoted(difference(free, taken), quoted), schema.additional))

        def write_one(source: int) -> int:
            return self._any_of([self._pair_writer(key, value) for key, value in kinds], source)

        def write(source: int) -> int:
            target = self.nfa.state()
            current = source
            copies = max(least, 1) if most is None else most
            for count in range(1, copies + 1):
                before = current
                after = write_one(before)
                if count >= least:
                    self.nfa.move(after, target)
                if count < copies or most is None:
                    current = self.nfa.state()
                    self.nfa.move(self._token(self._comma, after), current)
            if most is None:
                self.nfa.move(current, before)
            return target

        return write

    def _pair_writer(self, key: Dfa, value: Schema) -> _Writer:
        def write(source: int) -> int:
            return self.emit(value, self._token(self._colon, self._token(key, source)))

        return write


def _has_one_spelling(text: str) -> bool:
    """Whether no character of a text can be escaped in a string."""
    return json.dumps(text) == f'"{text}"' and "\x7f" not in text


def _lexeme(pattern: str) -> Dfa:
    return regex_dfa(parse_regex(pattern))
