"""Leaving the loop at unknown edges, against llguidance called at every step."""

from __future__ import annotations

import functools
import itertools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from llguidance import LLMatcher

from dendrite_jax import grammar as gr
from dendrite_jax.grammar.table.lazy_table import (
    NO_EDGE,
    NODE,
    PROBES,
    LazyTable,
    edge_hash,
    find_edge,
)
from grammar.oracle import mask_of, matcher
from grammar.vocabularies import byte_level

TOKENS = byte_level().token_bytes
END = byte_level().eos_ids[0]

ARITHMETIC = r"""
start: expr
expr: term (("+"|"-") term)*
term: factor (("*"|"/") factor)*
factor: NUM | "(" expr ")"
NUM: /[0-9]{1,3}(\.[0-9]{1,2})?/
"""
TREE: dict[str, Any] = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "v": {"type": "boolean"},
                "next": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["v"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
STEPS = 24

Carry = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def lark(text: str) -> gr.Grammar:
    return gr.Grammar.from_lark(text)


@functools.partial(jax.jit, static_argnames="free")
def _run(table: gr.LazyTable, logits: jax.Array, carry: Carry, free: bool = False) -> Carry:
    """Takes the best allowed token of each step's logits until done or a lane misses an edge."""

    def settle(carry: Carry) -> Carry:
        step, state, pending, out = carry
        state, miss = gr.try_accept_token(table, state, pending)
        return step, state, jnp.where(miss, pending, gr.NO_TOKEN), out

    def body(carry: Carry) -> Carry:
        step, state, _, out = carry
        token = jnp.argmax(gr.apply_token_bitmask(logits[step], table, state), -1)
        return settle((step + 1, state, token.astype(jnp.int32), out.at[:, step].set(token)))

    def goes_on(carry: Carry) -> jax.Array:
        return (carry[0] < len(logits)) & jnp.all(carry[2] == gr.NO_TOKEN)

    return jax.lax.while_loop(goes_on, body, settle(carry))


def _generate(lazy: gr.LazyGrammar, index: jax.Array, logits: jax.Array) -> tuple[np.ndarray, int]:
    lanes = len(index)
    carry = (
        jnp.int32(0),
        gr.initial_state(lazy.table, index),
        jnp.full(lanes, gr.NO_TOKEN, jnp.int32),
        jnp.zeros((lanes, len(logits)), jnp.int32),
    )
    exits = 0
    while True:
        carry = _run(lazy.table, logits, carry)
        if (carry[2] == gr.NO_TOKEN).all():
            return np.asarray(carry[3]), exits
        lazy.expand(carry[1], carry[2], held=carry[1])
        exits += 1


def _logits(seed: int, lanes: int) -> jax.Array:
    """Random logits in which single bytes, and ends of brackets, are likely."""
    noise = 2 * jax.random.normal(jax.random.key(seed), (STEPS, lanes, len(TOKENS)))
    bias = np.array([3.0 if data in (b"]", b"}", b")", b'"', b":") else 0 for data in TOKENS])
    return noise + bias


def _oracle(roots: list[LLMatcher], logits: np.ndarray) -> np.ndarray:
    """The same choices, with one llguidance call per step and lane."""
    out = np.zeros((len(roots), len(logits)), np.int32)
    for lane, root in enumerate(roots):
        here = root.deep_copy()
        done = False
        for step, row in enumerate(logits[:, lane]):
            allowed = mask_of(here)
            if done:
                allowed = np.arange(len(TOKENS)) == END
            token = int(np.argmax(np.where(allowed, row, -np.inf)))
            out[lane, step] = token
            if token == END:
                done = True
            elif not done:
                assert here.consume_token(token)
    return out


@pytest.fixture(scope="module")
def lazy(compiler: gr.GrammarCompiler) -> gr.LazyGrammar:
    """Arithmetic, trees and a regex side by side; tests may add nodes."""
    grammars = [
        lark(ARITHMETIC),
        gr.Grammar.from_json_schema(TREE),
        gr.Grammar.from_regex("[ab]+c"),
    ]
    return gr.LazyGrammar(compiler, grammars, max_nodes=4096, max_masks=256)


def _roots() -> list[LLMatcher]:
    header = '%llguidance {"no_forcing": true}\n'
    return [
        matcher(header + ARITHMETIC),
        matcher(f"{header}start: %json {json.dumps(TREE)}"),
        matcher(f"{header}start: /[ab]+c/"),
    ]


@pytest.mark.parametrize("seed", range(3))
def test_it_generates_what_llguidance_generates_step_by_step(
    lazy: gr.LazyGrammar, seed: int
) -> None:
    index = jnp.arange(6) % 3
    logits = _logits(seed, lanes=6)
    ours, _ = _generate(lazy, index, logits)
    roots = _roots()
    np.testing.assert_array_equal(ours, _oracle([roots[i] for i in index], np.asarray(logits)))
    assert lazy.failures == 0
    _, exits = _generate(lazy, index, logits)
    assert exits == 0


def test_known_states_agree_with_a_table(compiler: gr.GrammarCompiler) -> None:
    pattern = gr.Grammar.from_regex("(ab|cd){1,3}")
    table = compiler.compile(pattern)
    lazy = gr.LazyGrammar(compiler, [pattern], max_nodes=256, max_masks=64)
    rng = np.random.default_rng(0)
    for _ in range(10):
        ours, theirs = gr.initial_state(lazy.table), gr.initial_state(table)
        while not bool(gr.is_terminated(theirs)):
            allowed = np.asarray(gr.allowed_tokens(table, theirs))
            np.testing.assert_array_equal(allowed, np.asarray(gr.allowed_tokens(lazy.table, ours)))
            token = jnp.int32(rng.choice(np.flatnonzero(allowed)))
            after, miss = gr.try_accept_token(lazy.table, ours, token)
            if miss:
                lazy.expand([ours], [token])
                after, miss = gr.try_accept_token(lazy.table, ours, token)
            assert not miss
            ours, theirs = after, gr.accept_token(table, theirs, token)
        assert bool(gr.is_terminated(ours))


def test_tokens_outside_the_grammar_and_free_lanes_never_miss(lazy: gr.LazyGrammar) -> None:
    table = lazy.table
    state = jnp.concatenate(
        [gr.initial_state(table, jnp.array([0, gr.NO_GRAMMAR])), jnp.array([gr.DONE_STATE, 0, 0])]
    )
    token = jnp.array([TOKENS.index(b"x"), TOKENS.index(b"x"), END, END, TOKENS.index(b"x")])
    after, miss = gr.try_accept_token(table, state, token)
    assert not miss.any()
    assert after.tolist() == [gr.DEAD_STATE, gr.FREE_STATE, gr.DONE_STATE, 0, 0]
    kept, miss = gr.try_accept_token(table, state, jnp.full(5, gr.NO_TOKEN))
    assert kept.tolist() == state.tolist()
    assert not miss.any()


def test_tables_never_miss(compiler: gr.GrammarCompiler) -> None:
    table = compiler.compile(gr.Grammar.from_regex("ab"))
    state = gr.initial_state(table, jnp.zeros(2, jnp.int32))
    token = jnp.array([TOKENS.index(b"a"), TOKENS.index(b"b")])
    after, miss = gr.try_accept_token(table, state, token)
    assert not miss.any()
    assert after.tolist() == gr.accept_token(table, state, token).tolist()


def test_a_full_table_forgets_what_no_branch_holds(compiler: gr.GrammarCompiler) -> None:
    small = gr.LazyGrammar(compiler, [lark(ARITHMETIC)], max_nodes=64, max_masks=40)
    roots = _roots()[:1]
    # The second round meets edges whose nodes were forgotten and whose numbers others have.
    for seed in (0, 1, 2, 3, 0, 1, 2, 3):
        logits = _logits(seed, lanes=2)
        ours, _ = _generate(small, jnp.zeros(2, jnp.int32), logits)
        np.testing.assert_array_equal(ours, _oracle(roots * 2, np.asarray(logits)))
        assert small.nodes <= 64
        assert small.masks <= 40


def test_too_many_held_states_name_the_knob(compiler: gr.GrammarCompiler) -> None:
    small = gr.LazyGrammar(compiler, [lark(ARITHMETIC)], max_nodes=8, max_masks=40)
    start = int(small.table.start[0])
    digits = [TOKENS.index(str(i).encode()) for i in range(10)]
    with pytest.raises(gr.TooManyStatesError, match="max_nodes is 8"):
        small.expand([start] * 10, digits)
    few = gr.LazyGrammar(compiler, [lark(ARITHMETIC)], max_nodes=64, max_masks=4)
    with pytest.raises(gr.TooManyStatesError, match="max_masks is 4"):
        few.expand([start] * 10, digits)


def test_a_table_without_room_for_a_state_is_refused(compiler: gr.GrammarCompiler) -> None:
    for sizes in ({"max_nodes": 3}, {"max_nodes": -5}, {"max_masks": 1}):
        ((name, value),) = sizes.items()
        with pytest.raises(gr.TooManyStatesError, match=f"{name} is {value}; it must be at least"):
            gr.LazyGrammar(compiler, [lark(ARITHMETIC)], **sizes)
    with pytest.raises(gr.TooManyStatesError, match="below the number of grammars"):
        gr.LazyGrammar(compiler, [lark(ARITHMETIC)], max_masks=2)


def test_states_of_another_grammar_are_refused(compiler: gr.GrammarCompiler) -> None:
    small = gr.LazyGrammar(compiler, [lark(ARITHMETIC)], max_nodes=64, max_masks=40)
    with pytest.raises(ValueError, match="state 60 is not a node of this LazyGrammar"):
        small.expand([60], [TOKENS.index(b"1")])


def test_a_branch_is_restored_from_its_tokens(compiler: gr.GrammarCompiler) -> None:
    lazy = gr.LazyGrammar(compiler, [lark(ARITHMETIC)], max_nodes=64, max_masks=40)
    tokens = [TOKENS.index(bytes([byte])) for byte in b"(1+2"]
    state = lazy.state_after(tokens)
    allowed = np.asarray(gr.allowed_tokens(lazy.table, jnp.int32(state)))
    assert allowed[TOKENS.index(b")")]
    assert not allowed[END]
    assert lazy.state_after(tokens) == state
    assert lazy.state_after([*tokens, TOKENS.index(b")"), END]) == gr.DONE_STATE
    with pytest.raises(gr.GrammarError, match="token 4: the grammar does not allow"):
        lazy.state_after([*tokens, END])
    for token in (TOKENS.index(b"1"), len(TOKENS), -1):
        with pytest.raises(gr.GrammarError, match="token 6: the grammar does not allow"):
            lazy.state_after([*tokens, TOKENS.index(b")"), END, token])


@pytest.mark.parametrize("texts", [["a.b", "\x00\x7f\n"], ["", '/"\\u{'], ["é\u2028😀"]])
def test_choices_are_taken_as_they_are(compiler: gr.GrammarCompiler, texts: list[str]) -> None:
    choice = gr.Grammar.from_choice(texts)
    lazy = gr.LazyGrammar(compiler, [choice], max_nodes=256, max_masks=64)
    for text in texts:
        assert lazy.state_after([*text.encode(), END]) == gr.DONE_STATE
    with pytest.raises(gr.GrammarError, match="does not allow"):
        lazy.state_after(b"axb")


def test_keywords_that_mean_nothing_are_kept_from_llguidance(compiler: gr.GrammarCompiler) -> None:
    node = TREE["$defs"]["node"]
    leaf = {"if": {}, "not": False, "type": "boolean"}
    properties = {**node["properties"], "v": leaf, "w": {"not": {}}}
    schema = {**node, "properties": properties, "dependencies": {}, "uniqueItems": False}
    grammar = gr.Grammar.from_json_schema({**TREE, "$defs": {"node": schema}})
    lazy = gr.LazyGrammar(compiler, [grammar], max_nodes=256, max_masks=64)
    text = b'{"v":true,"next":[{"v":false}]}'
    assert lazy.state_after([*text, END]) == gr.DONE_STATE
    with pytest.raises(gr.GrammarError, match="does not allow"):
        lazy.state_after(b'{"v":true,"w"')


def test_user_settings_are_kept(compiler: gr.GrammarCompiler) -> None:
    text = '%llguidance {"allow_invalid_utf8": true}\nstart: "a" /b*/'
    assert gr.LazyGrammar(compiler, [lark(text)], max_nodes=16, max_masks=8).nodes == 1


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        (gr.Grammar.from_lark("start: ("), r"^line 1, column 9: invalid Lark grammar: Expected.*$"),
        (
            gr.Grammar.from_lark('\n%llguidance {}\nstart: "a" b\nb: missing'),
            '^line 4, column 4: invalid Lark grammar: unknown name: "missing"$',
        ),
        (gr.Grammar.from_lark("start: /(a/"), "^line 1, column 8: .*unclosed group$"),
        (gr.Grammar.from_lark("start: <|gone|>"), "^invalid Lark grammar: [^\n]*$"),
        (gr.Grammar.from_lark("start: /[^\\s\\S]/"), "^the grammar accepts no text"),
        (gr.Grammar.from_regex("a^b|c"), "^invalid regex grammar: [^\n]*$"),
        (gr.Grammar.from_lark("%llguidance {no}\nstart: /a/"), "%llguidance line is not JSON"),
        (gr.Grammar.from_regex("(?=a)"), "lookahead"),
        (gr.Grammar.from_json_schema({"not": {"type": "null"}}), "keyword 'not'"),
        (gr.Grammar.from_json_schema({"$ref": "#"}), "allows no value"),
        (
            gr.Grammar.from_json_schema({"type": "array", "items": {"$ref": "#"}, "minItems": 1}),
            "allows no value",
        ),
    ],
)
def test_bad_grammars_are_refused(
    compiler: gr.GrammarCompiler, grammar: gr.Grammar, reason: str
) -> None:
    with pytest.raises(gr.GrammarError, match=reason):
        gr.LazyGrammar(compiler, [grammar], max_nodes=16, max_masks=8)


def test_the_hash_is_the_same_on_host_and_device() -> None:
    rng = np.random.default_rng(0)
    node, token = rng.integers(0, 1 << 20, (2, 1000))
    host = edge_hash(node, token)
    device = edge_hash(jnp.asarray(node, jnp.int32), jnp.asarray(token, jnp.int32))
    np.testing.assert_array_equal(host, np.asarray(device))
    # A tenth full, runs of PROBES slots do not fill up.
    slots = np.bincount(host % 10_000, minlength=10_000)
    assert np.convolve(slots, np.ones(PROBES)).max() < 2 * PROBES


def test_every_edge_of_a_crowded_table_is_found_and_no_other() -> None:
    edges = np.full((64, 3), NO_EDGE, np.int32)
    known: dict[tuple[int, int], int] = {}
    for node, token in itertools.product(range(3, 9), range(9)):
        first = int(edge_hash(np.array([node]), np.array([token]))[0])
        slots = [(first + probe) % len(edges) for probe in range(PROBES)]
        free = [slot for slot in slots if edges[slot, NODE] == NO_EDGE]
        if free:
            known[node, token] = 100 + len(known)
            edges[free[0]] = node, token, known[node, token]
    assert len(known) > 40
    nothing = jnp.zeros((1, 1), jnp.uint32)
    table = LazyTable(jnp.asarray(edges), nothing, nothing, nothing, nothing, vocab_size=1)
    pairs = list(itertools.product(range(3, 12), range(12)))
    found = find_edge(table, *jnp.asarray(pairs, jnp.int32).T)
    assert found.tolist() == [known.get(pair, NO_EDGE) for pair in pairs]
