"""Generation under grammars in the engine, against llguidance asked before every token."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import checkpoints, engine
from dendrite_jax import grammar as gr
from dendrite_jax.engine import FINISH_NAMES, GREEDY, GenerateConfig, Generated, State, StopRules
from engine import constraint_programs as programs
from engine.constraint_programs import (
    CACHE,
    CONFIG,
    END,
    NEW_TOKENS,
    REGEXES,
    SAMPLING,
    TOKENS,
    lanes_of,
    model,
    opened,
    oracle,
    regex,
    regex_root,
    run,
    stacked,
    text_of,
)
from engine.programs import LANES, fork, free, pad, run_prefill, step

PROMPTS = ["a", "{", "name", "12"]
INDEX = np.array([0, 1, 2, gr.NO_GRAMMAR], np.int32)
"""Of the grammars; the last branch has none."""


def constrained(seed: int = 0) -> tuple[State, np.ndarray]:
    """A branch under each grammar, and a free one."""
    state, ids = opened(PROMPTS, seed)
    return programs.constrain(state, ids, stacked(), INDEX), ids


def finishes(out: Generated) -> list[str]:
    return [FINISH_NAMES[reason] for reason in out.finish.tolist()]


def roots() -> list[Any]:
    return [*(regex_root(pattern) for pattern in REGEXES), None]


@pytest.mark.parametrize("seed", range(4))
def test_lanes_draw_what_llguidance_allows(seed: int) -> None:
    state, ids = constrained(seed)
    keys = np.asarray(state.key)[ids]
    state, out = run(state, ids)
    for lane, root in enumerate(roots()):
        held = programs.prompt(PROMPTS[lane])
        tokens, logprobs, finish = oracle(root, held[-1], keys[lane], len(held))
        assert lanes_of(out)[lane] == tokens
        assert finishes(out)[lane] == finish
        np.testing.assert_allclose(out.logprobs[lane, : len(tokens)], logprobs, atol=1e-4)
        raw = np.asarray(jax.nn.log_softmax(model().table))[[held[-1], *tokens[:-1]], tokens]
        np.testing.assert_allclose(out.raw_logprobs[lane, : len(tokens)], raw, atol=1e-4)


def test_complete_texts_are_of_their_languages() -> None:
    complete = 0
    for seed in range(10, 20):
        state, ids = constrained(seed)
        state, out = run(state, ids)
        for lane, pattern in enumerate(REGEXES):
            if finishes(out)[lane] == "stop_token":
                tokens = lanes_of(out)[lane]
                assert tokens[-1] == END
                assert re.fullmatch(pattern, text_of(tokens[:-1]).decode())
                complete += 1
    assert complete > 15


def test_forks_go_on_from_their_parents_place() -> None:
    state, ids = constrained()
    prefix = programs.prompt('"name": ')
    state, _ = run_prefill(model(), state, ids[:1], [prefix])
    state, children = fork(state, pad([ids[0]] * LANES))
    keys = np.asarray(state.key)[children]
    state, out = run(state, children)
    root = regex_root(REGEXES[0])
    for token in prefix:
        assert root.consume_token(token)
    for lane in range(LANES):
        tokens, _, _ = oracle(root, prefix[-1], keys[lane], len(PROMPTS[0]) + len(prefix))
        assert lanes_of(out)[lane] == tokens
        assert text_of(tokens) in (b"true", b"false")
    # The parent is where it was.
    state, out = run(state, ids[:1])
    assert text_of(lanes_of(out)[0]) in (b"true", b"false")


def test_a_finished_branch_stays_finished_and_a_reused_slot_is_free() -> None:
    state, ids = constrained()
    state, out = run(state, ids[:1])
    assert finishes(out)[0] == "stop_token"
    state, again = run(state, ids[:1])
    assert finishes(again)[0] == "stop_token"
    assert again.length[0] == 0
    state = free(state, pad(ids[:1]))
    state, opened_ids = programs.open_one(state)
    assert opened_ids[0] == ids[0]
    state, _ = run_prefill(model(), state, opened_ids, [programs.prompt("a")])
    state, out = run(state, opened_ids)
    assert finishes(out)[0] == "length"


def test_a_dead_branch_is_flagged_and_the_others_go_on() -> None:
    state, ids = constrained()
    _, unhindered = run(*constrained())
    state, stepped = step(model(), state, ids[1:2], [TOKENS.index(b"}")])
    assert stepped.ok[0]
    state, out = run(state, ids)
    assert finishes(out)[1] == "grammar_dead"
    assert out.length[1] == 0
    for lane in (0, 2, 3):
        assert lanes_of(out)[lane] == lanes_of(unhindered)[lane]


def test_a_lane_whose_allowed_tokens_the_model_excludes_dies_alone() -> None:
    state, ids = constrained()
    nul = TOKENS.index(b"\0")
    only_nul = model().replace(table=jnp.full_like(model().table, -jnp.inf).at[:, nul].set(0.0))
    # The first tokens follow from the prompts, which the other model has read.
    _, out = programs.generate(only_nul, state, pad([ids[0], ids[3]]), CONFIG, SAMPLING)
    assert finishes(out)[:2] == ["grammar_dead", "length"]
    assert out.length[:2].tolist() == [2, NEW_TOKENS]
    assert set(out.tokens[1, 1:].tolist()) == {nul}


def test_stop_rules_end_a_constrained_lane_too() -> None:
    state, ids = constrained()
    _, out = run(state, ids, stop=StopRules.of([TOKENS.index(b"t"), TOKENS.index(b"true")]))
    assert finishes(out)[0] == "stop_token"
    assert lanes_of(out)[0][-1] != END or b"false" in text_of(lanes_of(out)[0])


def test_greedy_takes_the_likeliest_allowed_token() -> None:
    state, ids = constrained()
    _, out = programs.generate(model(), state, pad(ids), CONFIG, GREEDY)
    for lane, root in enumerate(roots()[:3]):
        last = programs.prompt(PROMPTS[lane])[-1]
        here = root.deep_copy()
        for token in lanes_of(jax.device_get(out))[lane]:
            row = np.where(programs.mask_of(here), np.asarray(model().table)[last], -np.inf)
            assert token == np.argmax(row)
            last = token
            assert token == END or here.consume_token(token)


@pytest.mark.slow
def test_it_maps_over_states() -> None:
    """Two states with other keys and other grammars under `vmap`, as each alone."""

    def alone(key: jax.Array, index: jax.Array) -> Generated:
        state = engine.init(model(), CACHE)
        state, ids = engine.open_branches(state, jax.random.split(key, 2))
        tokens = jnp.array([programs.prompt("ab")] * 2)
        state, _ = engine.prefill(model(), state, ids, tokens, jnp.array([2, 2]))
        state = engine.constrain(state, ids, stacked(), index)
        return engine.generate(model(), state, ids, GenerateConfig(8), SAMPLING)[1]

    keys, index = jax.random.split(jax.random.key(3), 2), jnp.array([[0, 1], [-1, 2]])
    together = jax.device_get(jax.jit(jax.vmap(alone))(keys, index))
    one = jax.jit(alone)
    for row in range(2):
        expected = jax.device_get(one(keys[row], index[row]))
        np.testing.assert_array_equal(together.tokens[row], expected.tokens)
        np.testing.assert_array_equal(together.finish[row], expected.finish)


def test_a_restored_state_goes_on_under_its_grammar(tmp_path: Path) -> None:
    state, ids = constrained()
    checkpoints.save(tmp_path / "state", state)
    restored = checkpoints.restore(tmp_path / "state", constrained(seed=1)[0])
    expected, found = (run(held, ids)[1] for held in (state, restored))
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    assert finishes(found)[0] == "stop_token"


def test_another_grammar_of_like_size_is_no_new_trace_and_nothing_visits_the_host() -> None:
    traces = 0

    def counted(*args: Any) -> tuple[State, Generated]:
        nonlocal traces
        traces += 1
        return engine.generate(*args)

    counting = jax.jit(counted, static_argnums=3, donate_argnums=1)
    lanes, on_device, stop = jax.device_put((pad(range(LANES)), model(), StopRules.of()))
    sampling = jax.device_put(SAMPLING)
    for pattern in ("abc", "b?cd", "(x|y)z"):
        state, ids = opened(PROMPTS)
        state = programs.constrain(state, ids, regex(pattern), np.zeros(LANES, np.int32))
        with jax.transfer_guard("disallow"):
            state, out = counting(on_device, state, lanes, CONFIG, sampling, stop)
        assert {text_of(tokens).decode() for tokens in lanes_of(jax.device_get(out))} <= {
            "abc",
            "bcd",
            "cd",
            "xz",
            "yz",
        }
    assert traces == 1


def test_constraining_keeps_the_places_of_other_branches_and_the_callers_arrays() -> None:
    state, ids = opened(PROMPTS)
    own = regex(REGEXES[0])
    state = programs.constrain(state, ids[:1], own, np.zeros(1, np.int32))
    prefix = programs.prompt('"na')
    state, _ = run_prefill(model(), state, ids[:1], [prefix])
    wider = gr.stack([own, regex("x+")])
    state = programs.constrain(state, ids[1:2], wider, np.ones(1, np.int32))
    state, out = run(state, ids[:2])
    assert text_of([*prefix, *lanes_of(out)[0]]) in (b'"name": true', b'"name": false')
    assert set(text_of(lanes_of(out)[1])) <= {ord("x")}
    assert int(own.next_state[0, 0]) == gr.DEAD_STATE


def test_a_grammar_of_another_vocabulary_is_refused() -> None:
    state, ids = opened(PROMPTS)
    wider = gr.GrammarCompiler(programs.byte_level(), vocab_size=len(TOKENS) + 5, use_cache=False)
    other = wider.compile(gr.Grammar.from_regex("a"))
    state = engine.constrain(state, jnp.asarray(ids), other)
    with pytest.raises(ValueError, match=rf"logits have {len(TOKENS)} tokens"):
        run(state, ids)


def test_only_a_constrained_state_takes_a_grown_table() -> None:
    state, _ = opened(PROMPTS)
    with pytest.raises(ValueError, match="constraint is None"):
        engine.with_table(state, stacked())
