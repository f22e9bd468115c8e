"""Branches that were cut: what they hold, what follows them, and that a stale one never guesses."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
from jax.typing import ArrayLike

from dendrite_jax import engine
from dendrite_jax import grammar as gr
from dendrite_jax.cache import BranchError, CacheConfig, CapacityError, debug, raise_errors
from dendrite_jax.engine import FINISH_NAMES, GREEDY, GenerateConfig, State
from engine import constraint_programs as constrained
from engine.programs import (
    CACHE,
    DECODER_TOLERANCE,
    LANES,
    VOCAB,
    bigram,
    branch_tokens,
    fork,
    generate,
    next_logits,
    pad,
    rewind,
    run_prefill,
    start,
    step,
    tiny_decoder,
    truncate,
)
from models.dense_decoder import dense_logits

MODEL = tiny_decoder()
PROMPT = [7, 100, 3, 42, 9, 9, 77, 1, 5, 60, 2]
"""Blocks of 4, 4 and 3 tokens."""
TOKEN_A = constrained.TOKENS.index(b"a")
INDEX = np.array([0, 1, 2, gr.NO_GRAMMAR], np.int32)
"""Of the grammars; the last branch has none."""


def assert_dense(logits: ArrayLike, tokens: list[int]) -> None:
    """Compares the logits [vocab] after some tokens with the dense decoder's."""
    expected = dense_logits(MODEL.config, MODEL.params, np.array([tokens]))[0, -1]
    assert np.max(np.abs(logits - expected)) < DECODER_TOLERANCE * np.max(np.abs(expected))


def grammar_states(state: State, ids: ArrayLike) -> list[int]:
    assert state.constraint is not None
    return state.constraint.grammar_state[np.asarray(ids)].tolist()


def test_a_cut_branch_is_what_its_tokens_alone_would_give() -> None:
    state, ids = start(MODEL, [PROMPT, PROMPT])
    state, parts = fork(state, pad(ids[[0, 0, 0]]), pad([6, 8, 1]))
    state, cut = truncate(state, pad(ids[1:2]), pad([5]))
    assert cut.tolist() == [True, False, False, False]
    branches, kept = [*parts[:3].tolist(), int(ids[1])], [6, 8, 1, 5]
    state, stepped = rewind(MODEL, state, pad(branches))
    np.testing.assert_array_equal(next_logits(MODEL, state, pad(branches)), stepped.logits)
    for lane, length in enumerate(kept):
        assert_dense(stepped.logits[lane], PROMPT[:length])
    # They go on, each at another offset of blocks that others hold.
    state, stepped = step(MODEL, state, pad(branches), np.array([11, 12, 13, 14]))
    for lane, length in enumerate(kept):
        assert_dense(stepped.logits[lane], [*PROMPT[:length], 11 + lane])
    state, stepped = step(MODEL, state, pad(ids[:1]), np.full(LANES, 33))
    assert_dense(stepped.logits[0], [*PROMPT, 33])
    debug.check(state.cache)
    raise_errors(state.cache)


def test_new_tokens_make_a_cut_branch_whole_too() -> None:
    state, ids = start(MODEL, [PROMPT])
    state, _ = truncate(state, pad(ids[:1]), pad([6]))
    state, _ = run_prefill(MODEL, state, ids[:1], [[20, 21, 22]])
    assert_dense(next_logits(MODEL, state, pad(ids[:1]))[0], [*PROMPT[:6], 20, 21, 22])


def test_a_stale_branch_has_no_logits_and_generates_nothing() -> None:
    model = bigram()
    state, ids = start(model, [[3, 4, 5], [6, 7]])
    state, children = fork(state, pad(ids[[0, 1, 0]]), pad([2, 2, 0]))
    lanes = pad([*children[:3].tolist(), ids[0]])
    logits = np.asarray(next_logits(model, state, lanes))
    assert np.isnan(logits[[0, 2]]).all()
    np.testing.assert_array_equal(logits[[1, 3]], model.table[np.array([7, 5])])
    state, out = generate(model, state, lanes, GenerateConfig(3), GREEDY)
    assert [FINISH_NAMES[reason] for reason in out.finish.tolist()] == [
        "failed",
        "length",
        "failed",
        "length",
    ]
    assert state.cache.length[lanes].tolist() == [2, 5, 0, 6]
    with pytest.raises(BranchError, match=r"fork or truncate cut it; engine\.rewind runs"):
        raise_errors(state.cache)


def test_a_child_of_a_stale_branch_is_stale() -> None:
    model = bigram()
    state, ids = start(model, [[3, 4, 5]])
    state, _ = truncate(state, pad(ids[:1]), pad([2]))
    state, children = fork(state, pad(ids[:1]))
    assert np.isnan(next_logits(model, state, children)[0]).all()
    state, _ = rewind(model, state, children)
    np.testing.assert_array_equal(next_logits(model, state, children)[0], model.table[4])


def test_keeping_all_tokens_changes_nothing() -> None:
    model = bigram()
    state, ids = start(model, [[3, 4, 5]])
    state, cut = truncate(state, pad(ids[:1]), pad([3]))
    assert cut[0]
    np.testing.assert_array_equal(next_logits(model, state, pad(ids[:1]))[0], model.table[5])


def test_a_branch_without_a_token_cannot_be_rewound() -> None:
    model = bigram()
    state, ids = start(model, [[3]])
    state, stepped = rewind(model, state, pad(ids[:2]))
    assert stepped.ok.tolist() == [True, False, False, False]
    with pytest.raises(BranchError, match="it holds no token"):
        raise_errors(state.cache)


def test_rewinding_takes_no_block_of_a_full_pool() -> None:
    model = bigram()
    state, ids = start(model, [[1] * 16, [2] * 16])
    state, _ = run_prefill(model, state, ids, [[3] * 16, [4] * 16, [5] * 16, [6] * 16])
    state, _ = run_prefill(model, state, ids, [[3] * 8, [4] * 8, [5] * 16, [6] * 16])
    state, _ = run_prefill(model, state, ids[2:], [[5] * 8, [6] * 8])
    assert not (state.cache.pool.ref_count == 0).any()
    state, children = fork(state, pad(ids[:1]), pad([3]))
    used = np.asarray(state.cache.pool.ref_count)
    state, stepped = rewind(model, state, children)
    np.testing.assert_array_equal(stepped.logits[0], model.table[1])
    np.testing.assert_array_equal(state.cache.pool.ref_count, used)
    assert state.cache.ledger.totals()["blocks_copied"] == 0


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_a_cut_text_is_continued_under_its_grammar(kept: int) -> None:
    state, ids = constrained.opened(["a", "{", "name", "12"])
    state = constrained.constrain(state, ids, constrained.stacked(), INDEX)
    prompts = state.cache.length[ids]
    state, whole = constrained.run(state, ids)
    taken = np.minimum(kept, whole.length)
    state, cut = truncate(state, ids, prompts + taken)
    assert cut.all()
    state, _ = rewind(constrained.model(), state, ids)
    # Draws hang on the branch's key and the position, so that the same tokens come again.
    state, again = constrained.run(state, ids)
    for lane in range(LANES):
        rest = whole.tokens[lane, taken[lane] : whole.length[lane]]
        np.testing.assert_array_equal(again.tokens[lane, : len(rest)], rest)
        if FINISH_NAMES[whole.finish[lane]] == "stop_token":
            assert again.length[lane] == len(rest)


def test_a_child_of_a_part_stands_in_the_grammar_where_that_part_ends() -> None:
    state, ids = constrained.opened(["a"])
    state = constrained.constrain(state, pad(ids[:1]), constrained.regex("(ab|abc)+"))
    places = grammar_states(state, ids[:1])
    for token in constrained.prompt("abcab"):
        state, _ = step(constrained.model(), state, pad(ids[:1]), np.full(LANES, token))
        places += grammar_states(state, ids[:1])
    # One token of prompt and five of text; a cut in the prompt begins the text there.
    state, children = fork(state, pad([ids[0]] * 4), pad([3, 6, 1, 0]))
    assert grammar_states(state, children) == [places[2], places[5], places[0], places[0]]
    state, _ = truncate(state, pad(ids[:1]), pad([5]))
    assert grammar_states(state, ids[:1]) == [places[4]]
    state, _ = step(constrained.model(), state, pad(children[3:]), np.full(LANES, TOKEN_A))
    assert grammar_states(state, children[3:]) == [places[1]]


def test_a_text_that_is_cut_away_begins_anew_at_the_cut() -> None:
    state, ids = constrained.opened(["aaa"])
    state = constrained.constrain(state, pad(ids[:1]), constrained.regex("(ab|abc)+"))
    state, _ = truncate(state, pad(ids[:1]), pad([1]))
    places = grammar_states(state, ids[:1])
    for token in constrained.prompt("abcab"):
        state, _ = step(constrained.model(), state, pad(ids[:1]), np.full(LANES, token))
        places += grammar_states(state, ids[:1])
    assert len(set(places[:3])) == 3
    for kept in (5, 3, 2, 1):
        state, _ = truncate(state, pad(ids[:1]), pad([kept]))
        assert grammar_states(state, ids[:1]) == [places[kept - 1]]


def test_a_resized_state_generates_the_same_tokens() -> None:
    model = bigram()
    state, ids = start(model, [[1, 2, 3, 4, 5], [6]])
    state, children = fork(state, pad(ids[[0, 0, 1]]))
    larger = replace(CACHE, num_blocks=60, num_slots=20, max_context=48)
    resized = engine.resize(state, larger)
    debug.check(resized.cache)
    tokens, length = branch_tokens(resized, children)
    assert length.tolist() == [5, 5, 1, 0]
    assert tokens[0, :5].tolist() == [1, 2, 3, 4, 5]
    resized, found = generate(model, resized, children, GenerateConfig(6))
    _, expected = generate(model, state, children, GenerateConfig(6))
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    with pytest.raises(CapacityError, match="num_slots is 4, and branch 6 is held"):
        engine.resize(resized, CacheConfig(60, 4, 48, 4))


def test_out_of_range_ids_cut_nothing() -> None:
    model = bigram()
    state, ids = start(model, [[VOCAB - 1] * 3])
    state, cut = truncate(state, pad([CACHE.num_slots, ids[0]]), pad([1, 4]))
    assert not cut.any()
    assert state.cache.length[ids[0]] == 3
    with pytest.raises(BranchError):
        raise_errors(state.cache)
    np.testing.assert_array_equal(
        next_logits(model, state, pad(ids[:1]))[0], jax.device_get(model.table)[VOCAB - 1]
    )
