"""From a JSON schema to the byte automaton of its texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dendrite_jax.grammar.automata.dfa import Dfa
from dendrite_jax.grammar.automata.minimise import minimise
from dendrite_jax.grammar.automata.nfa import DEFAULT_MAX_STATES
from dendrite_jax.grammar.errors import GrammarError
from dendrite_jax.grammar.json_schema.emit import SchemaEmitter, Unsatisfiable
from dendrite_jax.grammar.json_schema.options import KEY, SchemaOptions, read_options
from dendrite_jax.grammar.json_schema.parse import parse_schema


def schema_dfa(
    schema: Any,
    max_recursion_depth: int | None = None,
    max_states: int = DEFAULT_MAX_STATES,
) -> Dfa:
    """The minimal automaton of the JSON texts that are valid under `schema`.

    Args:
        schema: the schema as parsed JSON.
        max_recursion_depth: how often a definition, or the value of any type, may occur inside
            itself; None refuses schemas in which that happens.

    Raises:
        GrammarError: the schema is malformed, not supported or allows no value.
        UnboundedRecursionError: it is recursive and `max_recursion_depth` is None.
        TooManyStatesError: it needs more than `max_states`.
    """
    options = SchemaOptions()
    if isinstance(schema, Mapping) and KEY in schema:
        options = read_options(schema[KEY])
        schema = {name: value for name, value in schema.items() if name != KEY}
    parsed = parse_schema(schema, options)
    emitter = SchemaEmitter(parsed, options, max_recursion_depth, max_states)
    try:
        end = emitter.emit(parsed.root, emitter.root)
    except Unsatisfiable as exc:
        raise GrammarError(f"the schema allows no value: {exc}") from exc
    return minimise(emitter.nfa.determinise(emitter.root, end))
