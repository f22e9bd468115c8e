"""Generation against a replay in plain Python, and what becomes of each kind of lane."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.typing import ArrayLike

from dendrite_jax import engine
from dendrite_jax.cache import Appended, CacheConfig, CapacityError, KVPool, debug, raise_errors
from dendrite_jax.engine import (
    FINISH_NAMES,
    NO_TOKEN,
    GenerateConfig,
    Generated,
    State,
    StopRules,
    compile_stop_strings,
)
from dendrite_jax.testing import BigramModel
from engine.generation_oracle import TABLE, TOKEN_BYTES, Stops, grow
from engine.programs import (
    CACHE,
    LANES,
    VOCAB,
    bigram,
    branch_tokens,
    fork,
    free,
    generate,
    pad,
    run_prefill,
    set_keys,
    start,
)
from engine.sampling_oracle import Knobs, as_sampling, chi_square_p, log_softmax

MODEL = bigram()
NEW_TOKENS = 8
CONFIG = GenerateConfig(NEW_TOKENS, top_logprobs=3, return_hidden=True)
NO_STOPS = Stops()
TOLERANCE = 1e-5
"""Of logprobs of size 10 at most: a sum of 11 terms in float32, each within 2⁻²⁴."""

TOKEN = st.integers(0, VOCAB - 1)
PROMPTS = st.lists(st.lists(TOKEN, min_size=1, max_size=6), min_size=LANES, max_size=LANES)
LANE_KNOBS = st.builds(
    Knobs,
    repetition_penalty=st.sampled_from([1.0, 1.5, 0.7]),
    temperature=st.sampled_from([1.0, 0.0, 0.6, 1.8]),
    top_k=st.sampled_from([VOCAB, 3]),
    top_p=st.sampled_from([1.0, 0.8]),
    min_p=st.sampled_from([0.0, 0.1]),
)
STOPS = st.builds(
    Stops,
    tokens=st.tuples(st.just(-1) | TOKEN, st.just(-1)),
    string=st.sampled_from(["xyz", "abc", "bab", "aba"]),
)


def rules(stops: Stops) -> StopRules:
    return StopRules.of(stops.tokens, compile_stop_strings([stops.string], TOKEN_BYTES))


def run(
    state: State,
    ids: Iterable[int],
    knobs: Sequence[Knobs] = (Knobs(),) * LANES,
    stops: Stops = NO_STOPS,
    string_state: ArrayLike | None = None,
) -> tuple[State, Generated]:
    """Generates with every option on, so that all tests share one compilation; on the host."""
    if string_state is None:
        string_state = np.zeros(LANES, np.int32)
    state, out = generate(
        MODEL, state, pad(ids), CONFIG, as_sampling(knobs), rules(stops), string_state
    )
    return state, jax.device_get(out)


def held(state: State, branch: int) -> list[int]:
    tokens, length = branch_tokens(state, pad([branch]))
    return tokens[0, : length[0]].tolist()


def finishes(out: Generated) -> list[str]:
    return [FINISH_NAMES[reason] for reason in out.finish.tolist()]


def tokens_of(out: Generated) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(out.tokens, out.length.tolist(), strict=True)]


@given(
    prompts=PROMPTS,
    knobs=st.lists(LANE_KNOBS, min_size=LANES, max_size=LANES),
    stops=STOPS,
    seed=st.integers(0, 2**31),
)
@settings(max_examples=40)
def test_every_lane_is_the_replay_of_its_own_draws(
    prompts: list[list[int]], knobs: list[Knobs], stops: Stops, seed: int
) -> None:
    state, ids = start(MODEL, prompts, seed)
    keys = np.asarray(state.key)[ids]
    expected = [
        grown
        for prompt, key, lane_knobs in zip(prompts, keys, knobs, strict=True)
        if (grown := grow(prompt, key, NEW_TOKENS, lane_knobs, stops))
    ]
    assume(len(expected) == LANES)
    state, out = run(state, ids, knobs, stops)
    for lane, (prompt, grown) in enumerate(zip(prompts, expected, strict=True)):
        length = len(grown.tokens)
        assert out.tokens[lane].tolist() == pad(grown.tokens, NO_TOKEN, NEW_TOKENS).tolist()
        assert out.length[lane] == length
        assert finishes(out)[lane] == grown.finish
        assert held(state, ids[lane]) == prompt + grown.tokens
        for found, values in (
            (out.raw_logprobs, grown.raw_logprobs),
            (out.logprobs, grown.logprobs),
        ):
            np.testing.assert_allclose(found[lane, :length], values, rtol=0, atol=TOLERANCE)
            assert not np.any(found[lane, length:])
        check_extras(out, lane, prompt, grown.tokens)
    total = sum(len(grown.tokens) for grown in expected)
    assert state.cache.ledger.totals()["generated"] == total
    debug.check(state.cache)


def check_extras(out: Generated, lane: int, prompt: list[int], tokens: list[int]) -> None:
    """Top logprobs before each token and the hidden state after it."""
    assert out.top_tokens is not None
    assert out.top_raw_logprobs is not None
    length = len(tokens)
    logprobs = log_softmax(TABLE[[prompt[-1], *tokens[:-1]]])
    order = np.argsort(-logprobs, axis=1)[:, : CONFIG.top_logprobs]
    np.testing.assert_array_equal(out.top_tokens[lane, :length], order)
    np.testing.assert_allclose(
        out.top_raw_logprobs[lane, :length],
        np.take_along_axis(logprobs, order, axis=1),
        rtol=0,
        atol=TOLERANCE,
    )
    assert out.hidden is not None
    np.testing.assert_array_equal(out.hidden[lane, :length], TABLE[tokens])
    assert np.all(out.top_tokens[lane, length:] == NO_TOKEN)
    assert not np.any(out.top_raw_logprobs[lane, length:])
    assert not np.any(out.hidden[lane, length:])


def test_a_second_call_goes_on_as_one_longer_call_would() -> None:
    stops = Stops(string="aba")
    for seed in range(5):
        state, ids = start(MODEL, [[1], [2, 3], [4], [5, 6]], seed)
        whole = [grow(held(state, i), np.asarray(state.key)[i], 16, Knobs(), stops) for i in ids]
        state, first = run(state, ids, stops=stops)
        going_on = np.where(np.array(finishes(first)) == "length", ids, -1)
        state, second = run(state, going_on, stops=stops, string_state=first.string_state)
        for lane, grown in enumerate(whole):
            assert grown is not None
            assert tokens_of(first)[lane] + tokens_of(second)[lane] == grown.tokens


def test_a_branchs_tokens_depend_on_no_other_lane_nor_on_its_own() -> None:
    knobs = [Knobs(), Knobs(temperature=2.0), Knobs(top_k=4), Knobs(repetition_penalty=1.3)]
    prompts = [[1, 2], [3], [4, 5, 6], [7]]
    state, ids = start(MODEL, prompts)
    state, together = run(state, ids, knobs)
    for order in ([3, 2, 1, 0], [2], [-1, 1, -1, 0]):
        state, ids = start(MODEL, prompts)
        lanes = [ids[lane] if lane >= 0 else -1 for lane in order]
        lane_knobs = [knobs[max(lane, 0)] for lane in pad(order)]
        state, out = run(state, lanes, lane_knobs)
        for place, lane in enumerate(order):
            if lane >= 0:
                assert tokens_of(out)[place] == tokens_of(together)[lane]


def test_forks_of_one_branch_differ_and_equal_keys_agree() -> None:
    state, ids = start(MODEL, [[1, 2, 3]])
    state, children = fork(state, pad([ids[0]] * LANES))
    state, out = run(state, children.tolist())
    assert len({tuple(row) for row in tokens_of(out)}) == LANES
    state, twins = fork(state, pad([ids[0]] * 2))
    state = set_keys(state, twins, jax.random.split(jax.random.key(3), 1)[np.zeros(LANES, int)])
    state, out = run(state, twins.tolist())
    assert tokens_of(out)[0] == tokens_of(out)[1]


def test_transitions_have_the_models_distribution() -> None:
    """Draws of siblings and of positions are independent of each other."""
    state, ids = start(MODEL, [[1]])
    counts = np.zeros((VOCAB, VOCAB))
    for _ in range(250):
        state, children = fork(state, pad([ids[0]] * LANES))
        state, out = run(state, children.tolist())
        state = free(state, children)
        paths = np.concatenate([np.full((LANES, 1), 1), np.asarray(out.tokens)], axis=1)
        np.add.at(counts, (paths[:, :-1], paths[:, 1:]), 1)
    assert counts.sum() == 250 * LANES * NEW_TOKENS
    expected = counts.sum(axis=1, keepdims=True) * np.exp(log_softmax(TABLE))
    assert expected.min() > 1
    assert chi_square_p(counts, expected, freedom=VOCAB * (VOCAB - 1)) > 1e-3


def test_idle_dead_repeated_and_flagged_lanes_fail_with_nothing() -> None:
    state, ids = start(MODEL, [[1], [2], [3]])
    state = free(state, pad([ids[1]]))
    state, out = run(state, [ids[1], ids[0], ids[0], -1])
    assert finishes(out) == ["failed", "length", "failed", "failed"]
    assert out.length.tolist() == [0, NEW_TOKENS, 0, 0]
    assert np.all(np.asarray(out.tokens)[[0, 2, 3]] == NO_TOKEN)


def test_a_full_context_ends_a_lane_with_what_fitted() -> None:
    state, ids = start(MODEL, [[1] * 16] * 2)
    state, _ = run_prefill(MODEL, state, ids[:1], [[1] * 16])
    state, _ = run_prefill(MODEL, state, ids[:1], [[1] * 5])  # 37 of 40
    expected = grow([1] * 37, np.asarray(state.key)[ids[0]], 3, Knobs(), Stops())
    state, out = run(state, ids[:2])
    assert expected is not None
    assert finishes(out)[:2] == ["failed", "length"]
    assert tokens_of(out)[0] == expected.tokens
    assert held(state, ids[0]) == [1] * 37 + expected.tokens
    with pytest.raises(CapacityError, match=r"stopped at \[40\] tokens: max_context is 40"):
        raise_errors(state.cache)


def test_a_context_that_is_no_whole_number_of_blocks_is_the_users() -> None:
    cache = CacheConfig(num_blocks=20, num_slots=LANES, max_context=10, block_size=4)
    state, ids = start(MODEL, [[1] * 8, [2] * 10, [3], [4]], config=cache)
    state, stepped = run_prefill(MODEL, state, ids[2:3], [[3] * 10])  # of 9 that are left
    assert not stepped.ok[0]
    state, out = generate(MODEL, state, ids, GenerateConfig(4))
    assert finishes(out)[:3] == ["failed"] * 3
    assert np.asarray(out.length).tolist() == [2, 0, 0, 4]
    with pytest.raises(CapacityError, match=r"stopped at \[10, 10, 1\] tokens: max_context is 10 "):
        raise_errors(state.cache)


def test_lanes_without_blocks_fail_and_the_others_go_on() -> None:
    prompts = [[1] * 4, [2] * 4, [3] * 4, [4] * 4]
    state, ids = start(MODEL, prompts)
    state, free_run = run(state, ids)
    unhindered = tokens_of(free_run)

    state, ids = start(MODEL, prompts)
    state, fillers = fork(state, pad(ids))  # share the prompts' 4 blocks
    for length in (16, 15):
        state, _ = run_prefill(MODEL, state, fillers.tolist(), [[0] * length] * LANES)
    assert CACHE.num_blocks - 36 == 4
    state, out = run(state, ids)  # the first four blocks go to the lanes, the next to nobody
    assert finishes(out) == ["failed"] * LANES
    assert tokens_of(out) == [tokens[:4] for tokens in unhindered]
    debug.check(state.cache)

    state = free(free(state, fillers), ids)
    assert int(np.sum(state.cache.pool.ref_count == 0)) == CACHE.num_blocks


def test_the_first_lanes_get_the_last_blocks() -> None:
    prompts = [[1] * 4, [2] * 4, [3] * 4, [4] * 4]
    state, ids = start(MODEL, prompts)
    state, free_run = run(state, ids)
    unhindered = tokens_of(free_run)

    state, ids = start(MODEL, prompts)
    state, fillers = fork(state, pad(ids))
    state, _ = run_prefill(MODEL, state, fillers.tolist(), [[0] * 16] * LANES)
    state, _ = run_prefill(MODEL, state, fillers.tolist(), [[0] * 16, [0] * 16, [0] * 16, [0] * 4])
    assert int(np.sum(state.cache.pool.ref_count == 0)) == 7
    state, out = run(state, ids)
    assert finishes(out) == ["length", "length", "length", "failed"]
    assert tokens_of(out) == [*unhindered[:3], unhindered[3][:4]]
    with pytest.raises(CapacityError, match=r"branches \[3\] stopped: num_blocks is 40"):
        raise_errors(state.cache)


def test_new_values_of_the_knobs_are_no_new_trace_and_nothing_visits_the_host() -> None:
    traces = 0

    def counted(*args: Any) -> tuple[State, Generated]:
        nonlocal traces
        traces += 1
        return engine.generate(*args)

    state, ids = start(MODEL, [[1]] * LANES)
    counted_generate = jax.jit(counted, static_argnums=3, donate_argnums=1)
    sampling = [as_sampling([Knobs(t, t, 5, 0.9, 0.1)] * LANES) for t in (0.8, 1.0, 1.3)]
    model, lanes, samplings, stop = jax.device_put((MODEL, pad(ids), sampling, rules(Stops())))
    with jax.transfer_guard("disallow"):
        for knobs in samplings:
            state, out = counted_generate(model, state, lanes, CONFIG, knobs, stop)
        with pytest.raises(Exception, match=r"[Dd]isallowed host-to-device"):
            counted_generate(model, state, np.asarray(pad([0])), CONFIG, knobs, stop)
    assert traces == 1
    assert out.length.tolist() == [NEW_TOKENS] * LANES


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1; it must be at least 1"),
        ({"max_new_tokens": 1, "top_logprobs": -1}, "top_logprobs is -1; it must be at least 0"),
    ],
)
def test_a_bad_config_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GenerateConfig(**fields)


class PlanningModel(BigramModel):
    """Its plan counts how often it was asked for; the next token is that number."""

    def plan(self, pool: KVPool, table: jax.Array, length: jax.Array, previous: Any) -> jax.Array:
        return jnp.zeros((), int) if previous is None else previous + 1

    def forward(
        self, pool: KVPool, appended: Appended, tokens: jax.Array
    ) -> tuple[KVPool, jax.Array]:
        asked = 0 if appended.plan is None else appended.plan
        return pool, jnp.broadcast_to(jax.nn.one_hot(asked, VOCAB), (*tokens.shape, VOCAB))


def test_a_loop_keeps_the_plan_of_a_model_that_makes_one() -> None:
    model = PlanningModel(MODEL.table)
    state, ids = start(model, [[1, 2, 3]])
    state, out = generate(model, state, ids, GenerateConfig(5), engine.GREEDY)
    assert out.tokens[0].tolist() == [0, 1, 2, 3, 4]
    assert state.plan is None
