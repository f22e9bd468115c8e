"""Grammar constraints as data: a branch's grammar state is one int32 on the device.

    compiler = GrammarCompiler(tokenizer)
    grammar = compiler.compile(Grammar.from_json_schema(schema))
    state = initial_state(grammar)
    logits = apply_token_bitmask(logits, grammar, state)
    state = accept_token(grammar, state, token)

Two paths. A **table** (`CompiledGrammar`) holds regexes, choices and JSON schemas: byte automaton,
minimised, walked over the vocabulary trie. Recursive schemas need a depth bound. Everything else —
Lark grammars, unbounded recursion, tables over budget — runs on a `LazyGrammar`: a loop that meets
an unknown edge stops, the host asks llguidance, the loop goes on (`try_accept_token`).
"""

from dendrite_jax.grammar.compiler import GrammarCompiler
from dendrite_jax.grammar.errors import GrammarError, TooManyStatesError, UnboundedRecursionError
from dendrite_jax.grammar.grammar import Grammar, GrammarKind
from dendrite_jax.grammar.lazy.lazy_grammar import LazyGrammar
from dendrite_jax.grammar.table.compiled import (
    DEAD_STATE,
    DONE_STATE,
    FREE_STATE,
    NO_TOKEN,
    CompiledGrammar,
    stack,
)
from dendrite_jax.grammar.table.lazy_table import LazyTable
from dendrite_jax.grammar.table.runtime import (
    NO_GRAMMAR,
    accept_token,
    allowed_tokens,
    apply_token_bitmask,
    can_terminate,
    forced_tokens,
    initial_state,
    is_dead,
    is_terminated,
    try_accept_token,
)

__all__ = [
    "DEAD_STATE",
    "DONE_STATE",
    "FREE_STATE",
    "NO_GRAMMAR",
    "NO_TOKEN",
    "CompiledGrammar",
    "Grammar",
    "GrammarCompiler",
    "GrammarError",
    "GrammarKind",
    "LazyGrammar",
    "LazyTable",
    "TooManyStatesError",
    "UnboundedRecursionError",
    "accept_token",
    "allowed_tokens",
    "apply_token_bitmask",
    "can_terminate",
    "forced_tokens",
    "initial_state",
    "is_dead",
    "is_terminated",
    "stack",
    "try_accept_token",
]
