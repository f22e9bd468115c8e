"""The functions that a decoding loop uses, against plain Python on the texts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import grammar as gr
from dendrite_jax.grammar.table.compiled import DEAD_STATE, bucket
from grammar.vocabularies import byte_level

TOKENS = byte_level().token_bytes
END = byte_level().eos_ids[0]
PATTERNS = ["(ab|abc)+", "a[bc]{2}", '"name": (true|false)', "[0-9]{1,3}"]


def token(data: bytes) -> int:
    return TOKENS.index(data)


@pytest.fixture(scope="module")
def compiled(compiler: gr.GrammarCompiler) -> list[gr.CompiledGrammar]:
    return [compiler.compile(gr.Grammar.from_regex(pattern)) for pattern in PATTERNS]


@pytest.fixture(scope="module")
def stacked(compiled: list[gr.CompiledGrammar]) -> gr.CompiledGrammar:
    return gr.stack(compiled)


def _viable(pattern: str, text: bytes) -> bool:
    """Whether a text of the pattern begins so; the examples hold every beginning up to 5 bytes."""
    examples = {
        PATTERNS[0]: [
            a + b + c for a in ("ab", "abc") for b in ("", "ab", "abc") for c in ("", "ab")
        ],
        PATTERNS[1]: ["abb", "abc", "acb", "acc"],
        PATTERNS[2]: ['"name": true', '"name": false'],
        PATTERNS[3]: [str(i) for i in range(1000)] + ["00", "01", "000", "012"],
    }
    return any(example.encode().startswith(text) for example in examples[pattern])


@pytest.mark.parametrize("index", range(len(PATTERNS)))
def test_the_first_mask_holds_the_tokens_that_begin_a_text(
    compiled: list[gr.CompiledGrammar], index: int
) -> None:
    allowed = np.asarray(gr.allowed_tokens(compiled[index], gr.initial_state(compiled[index])))
    expected = [data is not None and _viable(PATTERNS[index], data) for data in TOKENS]
    assert allowed.tolist() == expected


def test_logits_become_float32_and_are_masked(compiled: list[gr.CompiledGrammar]) -> None:
    state = gr.initial_state(compiled[0], jnp.zeros((2, 3), jnp.int32))
    logits = jnp.ones((2, 3, len(TOKENS)), jnp.bfloat16)
    masked = gr.apply_token_bitmask(logits, compiled[0], state)
    assert masked.dtype == jnp.float32
    assert masked.shape == logits.shape
    allowed = np.asarray(gr.allowed_tokens(compiled[0], state))
    np.testing.assert_array_equal(np.asarray(masked), np.where(allowed, 1, -np.inf))


def test_logits_of_another_vocabulary_are_refused(compiled: list[gr.CompiledGrammar]) -> None:
    with pytest.raises(ValueError, match=rf"logits have 7 tokens.*vocab_size is {len(TOKENS)}"):
        gr.apply_token_bitmask(jnp.zeros(7), compiled[0], gr.initial_state(compiled[0]))


def test_a_text_is_accepted_token_by_token(compiled: list[gr.CompiledGrammar]) -> None:
    g = compiled[0]
    state = gr.initial_state(g)
    ends = []
    for data in (b"ab", b"abc", b"a", b"b"):
        state = gr.accept_token(g, state, jnp.int32(token(data)))
        ends.append(bool(gr.can_terminate(g, state)))
    assert ends == [True, True, False, True]
    assert not gr.is_terminated(state)
    state = gr.accept_token(g, state, jnp.int32(END))
    assert gr.is_terminated(state)
    assert np.flatnonzero(np.asarray(gr.allowed_tokens(g, state))).tolist() == [END]
    assert gr.is_terminated(gr.accept_token(g, state, jnp.int32(END)))
    assert gr.is_dead(gr.accept_token(g, state, jnp.int32(token(b"a"))))


def test_a_wrong_token_is_fatal_for_its_branch_only(stacked: gr.CompiledGrammar) -> None:
    state = gr.initial_state(stacked, jnp.arange(4))
    good = jnp.array([token(b"ab"), token(b"a"), token(b'"'), token(b"12")])
    state = gr.accept_token(stacked, state, good.at[1].set(token(b"x")))
    assert gr.is_dead(state).tolist() == [False, True, False, False]
    state = gr.accept_token(stacked, state, jnp.array([END, token(b"a"), END, END]))
    assert gr.is_dead(state).tolist() == [False, True, True, False]
    assert gr.is_terminated(state).tolist() == [True, False, False, True]


def test_no_token_leaves_the_state(stacked: gr.CompiledGrammar) -> None:
    state = gr.initial_state(stacked, jnp.array([0, 3, gr.NO_GRAMMAR]))
    kept = gr.accept_token(stacked, state, jnp.full(3, gr.NO_TOKEN))
    np.testing.assert_array_equal(np.asarray(kept), np.asarray(state))


def test_a_branch_without_a_grammar_is_free(stacked: gr.CompiledGrammar) -> None:
    state = gr.initial_state(stacked, gr.NO_GRAMMAR)
    assert int(state) == gr.FREE_STATE
    assert np.asarray(gr.allowed_tokens(stacked, state)).all()
    for data in (b"x", b"{", b"abc"):
        state = gr.accept_token(stacked, state, jnp.int32(token(data)))
    assert int(gr.accept_token(stacked, state, jnp.int32(END))) == gr.FREE_STATE


def test_stacked_grammars_behave_as_alone(
    compiled: list[gr.CompiledGrammar], stacked: gr.CompiledGrammar
) -> None:
    twice = gr.stack([stacked, compiled[1]])
    assert twice.num_grammars == 5
    rng = np.random.default_rng(0)
    for index, alone in enumerate([*compiled, compiled[1]]):
        state, joint = gr.initial_state(alone), gr.initial_state(twice, index)
        for _ in range(12):
            allowed = np.asarray(gr.allowed_tokens(alone, state))
            np.testing.assert_array_equal(allowed, np.asarray(gr.allowed_tokens(twice, joint)))
            assert int(alone.forced_token[state]) == int(twice.forced_token[joint])
            chosen = jnp.int32(rng.choice(np.flatnonzero(allowed)))
            state = gr.accept_token(alone, state, chosen)
            joint = gr.accept_token(twice, joint, chosen)
        for other in (jnp.int32(token(b"\xff")), jnp.int32(len(TOKENS) - 2)):
            assert gr.is_dead(gr.accept_token(twice, joint, other))


def test_stacks_need_one_vocabulary(
    compiler: gr.GrammarCompiler, compiled: list[gr.CompiledGrammar]
) -> None:
    wider = gr.GrammarCompiler(byte_level(), vocab_size=len(TOKENS) + 5, use_cache=False)
    other = wider.compile(gr.Grammar.from_regex("a"))
    with pytest.raises(ValueError, match="different vocab_size"):
        gr.stack([compiled[0], other])
    with pytest.raises(ValueError, match="grammars is empty"):
        gr.stack([])


def test_ids_beyond_the_tokenizer_are_never_allowed() -> None:
    wider = gr.GrammarCompiler(byte_level(), vocab_size=len(TOKENS) + 40, use_cache=False)
    g = wider.compile(gr.Grammar.from_regex("(?s).*"))
    allowed = np.asarray(gr.allowed_tokens(g, gr.initial_state(g)))
    assert allowed.shape == (len(TOKENS) + 40,)
    assert not allowed[len(TOKENS) :].any()
    assert gr.is_dead(gr.accept_token(g, gr.initial_state(g), jnp.int32(len(TOKENS) + 3)))


def test_it_maps_and_traces_as_it_runs_alone(stacked: gr.CompiledGrammar) -> None:
    states = gr.initial_state(stacked, jnp.arange(4))
    logits = jax.random.normal(jax.random.key(0), (4, len(TOKENS)))

    def step(state: jax.Array, row: jax.Array) -> tuple[jax.Array, jax.Array]:
        chosen = jnp.argmax(gr.apply_token_bitmask(row, stacked, state))
        return gr.accept_token(stacked, state, chosen), chosen

    together = jax.jit(jax.vmap(step))(states, logits)
    for lane in range(4):
        for ours, theirs in zip(step(states[lane], logits[lane]), together, strict=True):
            assert int(ours) == int(theirs[lane])


def test_a_new_grammar_of_like_size_does_not_retrace(compiler: gr.GrammarCompiler) -> None:
    traces = 0

    @jax.jit
    def step(g: gr.CompiledGrammar, state: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return gr.accept_token(g, state, jnp.int32(0))

    for pattern in ("abc", "b?cd", "(x|y)z"):
        g = compiler.compile(gr.Grammar.from_regex(pattern))
        step(g, gr.initial_state(g))
    assert traces == 1
    # Nor does one more grammar beside others, while there is room.
    five = gr.stack([g] * 5)
    step(five, gr.initial_state(five, 4))
    step(gr.stack([five, g]), gr.initial_state(five, 4))
    assert traces == 2


def test_a_grammar_that_a_stack_does_not_have_gives_a_dead_state(
    compiled: list[gr.CompiledGrammar],
) -> None:
    five = gr.stack([*compiled, compiled[0]])
    index = jnp.array([4, 5, 6, -2, gr.NO_GRAMMAR])
    first = gr.initial_state(five, index)
    assert gr.is_dead(first).tolist() == [False, True, True, True, False]
    assert int(first[-1]) == gr.FREE_STATE


@pytest.mark.parametrize(
    ("size", "padded"), [(1, 16), (16, 16), (17, 24), (24, 24), (25, 32), (33, 48), (49, 64)]
)
def test_buckets(size: int, padded: int) -> None:
    assert bucket(size) == padded


def test_forced_tokens_are_the_only_ones_allowed(compiler: gr.GrammarCompiler) -> None:
    # Tokens of two bytes would leave a choice, so that these bytes occur in none.
    g = compiler.compile(gr.Grammar.from_regex("q#q#(k|j)#"))
    tokens, state = gr.forced_tokens(g, gr.initial_state(g, jnp.zeros(2, jnp.int32)), limit=6)
    expected = [token(bytes([byte])) for byte in b"q#q#"] + [gr.NO_TOKEN] * 2
    assert tokens.tolist() == [expected, expected]
    state = gr.accept_token(g, state[0], jnp.int32(token(b"k")))
    tokens, state = gr.forced_tokens(g, state, limit=3)
    # The end of the text is left to the step that samples.
    assert tokens.tolist() == [token(b"#"), gr.NO_TOKEN, gr.NO_TOKEN]
    assert bool(gr.can_terminate(g, state))
    assert int(g.forced_token[state]) == END


def test_a_token_is_forced_where_its_state_allows_no_other(stacked: gr.CompiledGrammar) -> None:
    used = np.flatnonzero((np.asarray(stacked.next_state) != DEAD_STATE).any(axis=1))
    allowed = np.asarray(gr.allowed_tokens(stacked, jnp.asarray(used)))
    assert set(allowed.sum(axis=1).tolist()) >= {1, 2, 3}
    expected = np.where(allowed.sum(axis=1) == 1, np.argmax(allowed, axis=1), gr.NO_TOKEN)
    np.testing.assert_array_equal(stacked.forced_token[used], expected)


def test_the_pytree_round_trips(stacked: gr.CompiledGrammar) -> None:
    leaves, structure = jax.tree.flatten(stacked)
    again = jax.tree.unflatten(structure, leaves)
    assert again.vocab_size == stacked.vocab_size
    assert stacked.nbytes == sum(leaf.nbytes for leaf in leaves)
