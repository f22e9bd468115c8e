"""Grammars without a table in the engine: the run stops at what is unknown, and goes on."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import checkpoints, engine, search
from dendrite_jax import grammar as gr
from dendrite_jax.engine import FINISH_NAMES, Generated, State
from dendrite_jax.search import BeamSearchConfig, SearchResult
from dendrite_jax.serving import (
    add_wanted_edges,
    complete_generation,
    complete_search,
    resume_grammar,
)
from engine.constraint_programs import (
    ARITHMETIC,
    CONFIG,
    REGEXES,
    SAMPLING,
    TOKENS,
    compiler,
    constrain,
    generate,
    lanes_of,
    lark_root,
    model,
    opened,
    oracle,
    prompt,
    stacked,
)
from engine.programs import LANES, branch_tokens, fork, pad, rewind, step, truncate

PROMPTS = ["a", "{", "name", "12"]
NESTED = 'start: item\nitem: "a" | "[" item ("," item)* "]"\n'
GRAMMARS = [ARITHMETIC, NESTED]
SMALL = (64, 24)
"""Nodes and masks that hold one search, and less than a few generations meet."""
INDEX = np.array([0, 1, 0, gr.NO_GRAMMAR], np.int32)


def lazy_grammar(max_nodes: int = 2048, max_masks: int = 128) -> gr.LazyGrammar:
    grammars = [gr.Grammar.from_lark(text) for text in GRAMMARS]
    return gr.LazyGrammar(compiler(), grammars, max_nodes=max_nodes, max_masks=max_masks)


def started(lazy: gr.LazyGrammar, seed: int = 0, index: np.ndarray = INDEX) -> tuple[State, Any]:
    state, ids = opened(PROMPTS, seed)
    return constrain(state, ids, lazy.table, index), ids


def run(lazy: gr.LazyGrammar, state: State, ids: Any) -> tuple[State, Generated, int]:
    """Generates to the end; also how often the loop was left at a miss."""
    calls = 0

    def go_on(state: State, begun: Generated) -> tuple[State, Generated]:
        nonlocal calls
        calls += 1
        return generate(model(), state, pad(ids), CONFIG, SAMPLING, begun=begun)

    begun = Generated.empty(model(), state, jnp.asarray(pad(ids)), CONFIG)
    state, out = complete_generation(lazy, *go_on(state, begun), go_on)
    return state, jax.device_get(out), calls - 1


@cache
def known() -> gr.LazyGrammar:
    """One grammar that tests may add nodes to."""
    return lazy_grammar()


def roots() -> list[Any]:
    matchers = [lark_root(text) for text in GRAMMARS]
    return [matchers[i] if i >= 0 else None for i in INDEX]


@pytest.mark.parametrize("seed", range(3))
def test_lanes_draw_what_llguidance_allows_step_by_step(seed: int) -> None:
    state, ids = started(known(), seed)
    keys = np.asarray(state.key)[ids]
    state, out, exits = run(known(), state, ids)
    assert exits > 0
    held, length = branch_tokens(state, pad(ids))
    for lane, root in enumerate(roots()):
        before = prompt(PROMPTS[lane])
        tokens, logprobs, finish = oracle(root, before[-1], keys[lane], len(before))
        assert lanes_of(out)[lane] == tokens
        assert FINISH_NAMES[out.finish[lane]] == finish
        np.testing.assert_allclose(out.logprobs[lane, : len(tokens)], logprobs, atol=1e-4)
        # No token was appended twice.
        assert held[lane, : length[lane]].tolist() == before + tokens


def test_what_is_known_is_not_asked_again() -> None:
    state, ids = started(known(), 7)
    state, first, _ = run(known(), state, ids)
    state, ids = started(known(), 7)
    state, again, exits = run(known(), state, ids)
    assert exits == 0
    np.testing.assert_array_equal(again.tokens, first.tokens)


def test_a_miss_changes_its_branch_in_nothing() -> None:
    lazy = lazy_grammar()
    state, ids = started(lazy)
    before = jax.device_get(state)
    tokens = [TOKENS.index(b"("), TOKENS.index(b"[")]
    state, stepped = step(model(), state, ids, [*tokens, TOKENS.index(b"7"), 0])
    assert stepped.ok.tolist() == [False, False, False, True]
    assert state.constraint is not None
    np.testing.assert_array_equal(state.constraint.grammar_state, before.constraint.grammar_state)
    np.testing.assert_array_equal(
        np.asarray(state.cache.length)[ids[:3]], before.cache.length[ids[:3]]
    )
    assert int(state.constraint.num_wanted) == 3
    state = add_wanted_edges(lazy, state)
    state, stepped = step(model(), state, ids[:2], tokens)
    assert stepped.ok[:2].all()
    assert lazy.nodes == len(GRAMMARS) + 3


def test_a_table_and_a_lazy_table_give_the_same() -> None:
    grammars = [gr.Grammar.from_regex(pattern) for pattern in REGEXES]
    lazy = gr.LazyGrammar(compiler(), grammars, max_nodes=512, max_masks=128)
    index = np.array([0, 1, 2, gr.NO_GRAMMAR], np.int32)
    state, ids = opened(PROMPTS)
    state = constrain(state, ids, stacked(), index)
    _, expected = generate(model(), state, pad(ids), CONFIG, SAMPLING)
    _, found, _ = run(lazy, *started(lazy, index=index))
    for name in ("tokens", "length", "finish"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_a_small_table_forgets_and_the_tokens_stay_the_same() -> None:
    small = lazy_grammar(*SMALL)
    for seed in range(6):
        _, expected, _ = run(known(), *started(known(), seed))
        _, found, _ = run(small, *started(small, seed))
        np.testing.assert_array_equal(found.tokens, expected.tokens)
        assert small.nodes <= SMALL[0]


def test_a_failure_of_llguidance_kills_the_branches_of_its_grammar_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first grammar's matcher gives up after its first token."""
    lazy = lazy_grammar()
    state, ids = started(lazy)
    _, expected, _ = run(known(), *started(known()))
    monkeypatch.setitem(lazy._node_matchers, int(lazy.table.start[0]), _GivesUp())
    _, out, _ = run(lazy, state, ids)
    names = [FINISH_NAMES[reason] for reason in out.finish]
    assert (names[0], names[2]) == ("grammar_dead", "grammar_dead")
    assert lazy.failures > 0
    for lane in (1, 3):
        assert lanes_of(out)[lane] == lanes_of(expected)[lane]


class _GivesUp:
    """A matcher whose copies accept nothing, as after an error inside llguidance."""

    def deep_copy(self) -> _GivesUp:
        return self

    def consume_token(self, token: int) -> bool:
        return False


BEAMS = BeamSearchConfig(width=3, max_new_tokens=6)
beam_search = jax.jit(partial(search.beam_search, config=BEAMS), static_argnames="config")


@pytest.mark.slow
def test_a_search_repeated_until_nothing_is_unknown_is_that_over_a_table() -> None:
    grammars = [gr.Grammar.from_regex(pattern) for pattern in REGEXES]
    index = np.array([0, 1, 2, gr.NO_GRAMMAR], np.int32)
    state, roots = opened(PROMPTS)
    state = constrain(state, roots, stacked(), index)
    _, expected = beam_search(model(), state, roots, None)

    lazy = gr.LazyGrammar(compiler(), grammars, max_nodes=512, max_masks=128)
    state, roots = started(lazy, index=index)
    searches = 0

    def once(state: State) -> tuple[State, Any]:
        nonlocal searches
        searches += 1
        return beam_search(model(), state, roots, None)

    _, found = complete_search(lazy, state, once)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.values, expected.values)
    assert 1 < searches <= BEAMS.max_new_tokens + 1
    searches = 0
    complete_search(lazy, started(lazy, index=index)[0], once)
    assert searches == 1


@pytest.mark.slow
def test_a_search_makes_room_in_a_full_table() -> None:
    small = lazy_grammar(*SMALL)
    for seed in range(3):
        run(small, *started(small, seed))
    state, roots = started(small)
    _, found = complete_search(small, state, lambda s: beam_search(model(), s, roots, None))
    state, roots = started(known())
    _, expected = complete_search(known(), state, lambda s: beam_search(model(), s, roots, None))
    np.testing.assert_array_equal(found.tokens, expected.tokens)


def test_a_search_that_needs_more_than_there_may_be_names_the_knob() -> None:
    tiny = lazy_grammar(max_nodes=8)
    state, ids = started(tiny)

    def ten_digits(state: State) -> tuple[State, None]:
        state = jax.tree.map(jnp.copy, state)  # fork and step donate theirs
        for digit in b"0123456789":
            state, children = fork(state, pad(ids[:1]))
            state, _ = step(model(), state, children, [digit])
        return state, None

    with pytest.raises(gr.TooManyStatesError, match="max_nodes is 8"):
        complete_search(tiny, state, ten_digits)


@pytest.mark.slow
def test_a_restored_state_goes_on_in_another_lazy_grammar(tmp_path: Path) -> None:
    state, ids = started(known(), 3)
    state, begun, _ = run(known(), state, ids)
    checkpoints.save(tmp_path / "state", state)
    _, expected, _ = run(known(), state, ids)
    fresh = lazy_grammar()
    restored = checkpoints.restore(tmp_path / "state", started(fresh)[0])
    restored = resume_grammar(fresh, restored, ids[:3], lanes_of(begun)[:3], INDEX[:3])
    lengths = restored.cache.length[ids]
    restored, found, exits = run(fresh, restored, ids)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    np.testing.assert_array_equal(found.finish, expected.finish)
    assert exits > 0
    # Where a text began is known still: a branch that is cut is where it was.
    restored, cut = truncate(restored, ids, lengths)
    assert cut.all()
    restored, _ = rewind(model(), restored, ids)
    _, again, _ = run(fresh, restored, ids)
    np.testing.assert_array_equal(again.tokens, found.tokens)
    with pytest.raises(gr.GrammarError, match="token 0: the grammar does not allow"):
        resume_grammar(fresh, started(fresh)[0], ids[:1], [[TOKENS.index(b")")]])


def test_a_branch_is_not_cut_to_where_its_table_cannot_tell_its_place() -> None:
    state, ids = started(known(), 5)
    prompts = state.cache.length[ids]
    state, out, _ = run(known(), state, ids)
    assert state.constraint is not None
    grown, held = state.constraint.table, prompts + out.length
    state = engine.with_table(state, lazy_grammar().table)  # of the same numbers, and no edge
    state, cut = truncate(state, ids, prompts + 1)
    assert cut.tolist() == [False, False, False, True]
    assert state.cache.length[ids].tolist() == [*held[:3].tolist(), prompts[3] + 1]
    assert state.constraint.num_wanted == 3
    state, children = fork(state, pad(ids), prompts + 1)
    assert (np.asarray(children) >= 0).tolist() == [False, False, False, True]
    state, cut = truncate(engine.with_table(state, grown), ids, prompts + 1)
    assert cut.all()


@pytest.mark.slow
def test_searches_of_mapped_states_are_completed_together() -> None:
    def states(lazy: gr.LazyGrammar) -> list[State]:
        return [started(lazy, index=index)[0] for index in (INDEX, np.roll(INDEX, 1))]

    _, roots = started(known())

    def search_one(state: State) -> tuple[State, SearchResult]:
        return beam_search(model(), state, roots, None)

    alone = [complete_search(known(), state, search_one)[1] for state in states(known())]
    lazy = lazy_grammar()
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states(lazy))
    _, found = complete_search(lazy, together, jax.jit(jax.vmap(search_one)))
    for row, expected in enumerate(alone):
        np.testing.assert_array_equal(found.tokens[row], expected.tokens)
        np.testing.assert_array_equal(found.values[row], expected.values)


def test_only_a_lazy_table_can_grow() -> None:
    state, ids = opened(PROMPTS)
    state = constrain(state, ids, stacked(), np.zeros(LANES, np.int32))
    with pytest.raises(ValueError, match="has no LazyTable"):
        add_wanted_edges(known(), state)


def test_a_full_log_asks_again_later() -> None:
    """More misses than the log holds: the rest are logged by the next try."""
    lazy = lazy_grammar()
    state, ids = started(lazy, index=np.zeros(LANES, np.int32))
    assert state.constraint is not None
    crowded = jnp.int32(engine.WANTED - 1)
    state = state.replace(constraint=state.constraint.replace(num_wanted=crowded))
    state, stepped = step(model(), state, ids, [TOKENS.index(b"1")] * LANES)
    assert not stepped.ok.any()
    assert state.constraint is not None
    assert int(state.constraint.num_wanted) == engine.WANTED - 1 + LANES
    state, stepped = step(model(), add_wanted_edges(lazy, state), ids, [TOKENS.index(b"1")] * LANES)
    assert stepped.ok.all()
