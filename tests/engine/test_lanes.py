"""Lanes that differ in their rules, lanes that end badly, and rounds that go on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine
from dendrite_jax.cache import BranchError, debug, raise_errors
from dendrite_jax.engine import (
    FINISH_NAMES,
    NO_AUTOMATON,
    NO_TOKEN,
    GenerateConfig,
    Generated,
    Round,
    State,
    StopRules,
    compile_stop_strings,
    stack_stop_strings,
)
from dendrite_jax.testing import BigramModel
from engine.generation_oracle import TOKEN_BYTES, Stops, grow
from engine.programs import (
    CACHE,
    LANES,
    VOCAB,
    bigram,
    fork,
    free,
    generate,
    pad,
    run_prefill,
    start,
    step,
)
from engine.sampling_oracle import Knobs
from jaxprs import loops_of

MODEL = bigram()
NEW = 12
CONFIG = GenerateConfig(NEW)
PROMPTS = [[1, 2], [3], [4, 5, 6], [7]]
AUTOMATA = stack_stop_strings([compile_stop_strings([s], TOKEN_BYTES) for s in ("ba", "abc", "c")])
STRINGS = ["ba", "abc", "c"]

empty = jax.jit(Generated.empty, static_argnames="config")


def rules(tokens: Any, automaton: Any, limit: Any) -> StopRules:
    return StopRules(
        np.array(tokens, np.int32), AUTOMATA, np.array(automaton, np.int32), np.array(limit)
    )


def finishes(out: Generated) -> list[str]:
    return [FINISH_NAMES[reason] for reason in np.asarray(out.finish).tolist()]


def tokens_of(out: Generated) -> list[list[int]]:
    lengths = np.asarray(out.length).tolist()
    return [row[:n].tolist() for row, n in zip(np.asarray(out.tokens), lengths, strict=True)]


def test_every_lane_has_its_own_limit_stop_tokens_and_stop_strings() -> None:
    reasons = set()
    for seed in range(12):
        state, ids = start(MODEL, PROMPTS, seed)
        tokens = [[3, NO_TOKEN], [NO_TOKEN, NO_TOKEN], [0, 9], [NO_TOKEN, 10]]
        automaton, limit = [1, 0, NO_AUTOMATON, 2], [12, 9, 4, 7]
        expected = [
            grow(
                prompt,
                np.asarray(state.key)[branch],
                most,
                Knobs(),
                Stops((own[0], own[1]), STRINGS[index] if index >= 0 else "xyz"),
            )
            for prompt, branch, own, index, most in zip(
                PROMPTS, ids, tokens, automaton, limit, strict=True
            )
        ]
        if None in expected:
            continue
        stop = rules(tokens, automaton, limit)
        state, out = generate(MODEL, state, ids, CONFIG, stop=stop)
        assert tokens_of(out) == [lane.tokens for lane in expected if lane]
        assert finishes(out) == [lane.finish for lane in expected if lane]
        reasons |= set(finishes(out))
    assert reasons == {"length", "stop_token", "stop_string"}


def test_a_limit_of_nothing_ends_a_lane_at_once() -> None:
    state, ids = start(MODEL, PROMPTS)
    stop = StopRules(limit=np.array([0, 3, 99, -1]))
    state, out = generate(MODEL, state, ids, CONFIG, stop=stop)
    assert np.asarray(out.length).tolist() == [0, 3, NEW, 0]
    assert finishes(out) == ["length"] * LANES


def test_rules_of_other_values_are_no_other_trace() -> None:
    traces = 0

    def counted(*args: Any) -> tuple[State, Generated]:
        nonlocal traces
        traces += 1
        return engine.generate(*args)

    run = jax.jit(counted, static_argnums=3)
    state, ids = start(MODEL, PROMPTS)
    for number in range(3):
        stop = rules([[number]] * LANES, [number % 3] * LANES, [number + 1] * LANES)
        _, out = run(
            MODEL, state, ids, CONFIG, engine.PLAIN, stop, None, None, Round(number + 1, number)
        )
        assert np.asarray(out.length).max() <= number
    assert traces == 1


@pytest.mark.parametrize("stop", [None, StopRules.of(), StopRules(jnp.zeros(0, int))])
def test_no_loop_reads_or_carries_an_array_of_size_zero(
    stop: StopRules | None,
) -> None:
    """jaxlib 0.11's partitioner dies on one under `jax.shard_map`."""
    state = jax.eval_shape(lambda: engine.init(MODEL, CACHE))
    ids = jnp.arange(LANES)
    config = GenerateConfig(NEW)
    traced = jax.make_jaxpr(lambda s: engine.generate(MODEL, s, ids, config, stop=stop))(state)
    loops = list(loops_of(traced.jaxpr))
    assert loops
    for loop in loops:
        assert all(var.aval.size for var in (*loop.invars, *loop.outvars))


def leaves(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


@pytest.mark.parametrize("until", [Round(steps=1), Round(steps=5), Round(pause=1), Round(2, 3)])
def test_rounds_give_what_one_call_gives(until: Round) -> None:
    stop = rules([[3, 0], [NO_TOKEN] * 2, [0, 9], [9, 10]], [1, 0, NO_AUTOMATON, 2], [12, 9, 4, 7])
    config = GenerateConfig(NEW, top_logprobs=2, return_hidden=True)
    state, ids = start(MODEL, PROMPTS, seed=3)
    begun = empty(MODEL, state, ids, config)
    whole_state, whole = generate(MODEL, state, ids, config, stop=stop, begun=begun)
    state, ids = start(MODEL, PROMPTS, seed=3)
    out, rounds = begun, 0
    while "running" in finishes(out):
        before = np.asarray(out.finish)
        steps = state.cache.ledger.totals()["steps"]
        state, out = generate(MODEL, state, ids, config, stop=stop, begun=out, until=until)
        steps = state.cache.ledger.totals()["steps"] - steps
        ended = int(np.sum((before == 0) & (np.asarray(out.finish) != 0)))
        assert steps >= 1
        if until.steps is not None:
            assert steps <= until.steps
        if "running" in finishes(out):
            assert steps == until.steps or ended >= (until.pause or NEW)
        rounds += 1
    assert rounds > 1
    for one, several in zip(leaves((whole_state, whole)), leaves((state, out)), strict=True):
        np.testing.assert_array_equal(one, several)


def test_a_lane_that_ended_takes_another_branch_between_rounds() -> None:
    """Six branches through two lanes give what each gives alone."""
    config = GenerateConfig(NEW)
    state, ids = start(MODEL, PROMPTS, seed=5)
    state, more = fork(state, pad([ids[0], ids[1]]))
    queue = [*ids.tolist(), *np.asarray(more).tolist()[:2]]
    limits = {branch: 3 + 2 * number for number, branch in enumerate(queue)}
    alone = {}
    for branch in queue:
        stop = StopRules(limit=np.full(LANES, limits[branch]))
        _, out = generate_kept(state, pad([branch]), config, stop)
        alone[branch] = tokens_of(out)[0]

    lanes, found = pad([queue.pop(0), queue.pop(0)]), {}
    out = empty(MODEL, state, lanes, config)
    while (lanes >= 0).any():
        stop = StopRules(limit=np.array([limits.get(branch, 0) for branch in lanes.tolist()]))
        state, out = generate(
            MODEL, state, lanes, config, stop=stop, begun=out, until=Round(pause=1)
        )
        ended = (lanes >= 0) & (np.asarray(out.finish) != 0)
        assert ended.any()
        for lane in np.flatnonzero(ended):
            found[int(lanes[lane])] = tokens_of(out)[lane]
            lanes[lane] = queue.pop(0) if queue else -1
        out = out.replaced(ended, by=empty(MODEL, state, lanes, config))
    assert found == alone


generate_kept = jax.jit(
    lambda state, ids, config, stop: engine.generate(MODEL, state, ids, config, stop=stop),
    static_argnums=2,
)


def spoilt(*rows: int, value: float = np.nan, token: int = 5) -> BigramModel:
    """A model whose logits after some tokens have a value that is no number, or all of them."""
    columns = slice(None) if token < 0 else token
    return BigramModel(MODEL.table.at[np.array(rows), columns].set(value))


@pytest.mark.parametrize(
    ("value", "token"), [(np.nan, 5), (np.inf, 5), (np.nan, -1), (-np.inf, -1)]
)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_branch_without_a_distribution_ends_alone(
    value: float, token: int, temperature: float
) -> None:
    sampling = engine.Sampling(temperature=temperature)
    model = spoilt(9, value=value, token=token)
    state, ids = start(model, [[1], [9], [2, 3], [4, 9]], seed=4)
    sound, _ = start(MODEL, [[1], [2], [2, 3], [4, 2]], seed=4)
    _, expected = generate(MODEL, sound, ids, CONFIG, sampling)
    state, out = generate(model, state, ids, CONFIG, sampling)
    for lane, good in enumerate(tokens_of(expected)):
        if lane in (1, 3):
            assert (tokens_of(out)[lane], finishes(out)[lane]) == ([], "bad_logits")
        elif 9 in good[:-1]:
            assert tokens_of(out)[lane] == good[: good.index(9) + 1]
            assert finishes(out)[lane] == "bad_logits"
        else:
            assert tokens_of(out)[lane] == good
            assert finishes(out)[lane] == "length"
    assert finishes(out).count("length") >= 1
    with pytest.raises(BranchError, match=r"branches \[1.*logits .* NaN or infinite"):
        raise_errors(state.cache)
    # They are flagged: nothing more is appended, even where a token is given.
    state, stepped = step(model, state, ids, [1] * LANES)
    assert np.asarray(stepped.ok).tolist() == [name != "bad_logits" for name in finishes(out)]
    debug.check(state.cache)


def test_dead_and_idle_lanes_of_a_spoilt_slot_fail_unflagged() -> None:
    model = spoilt(9)
    state, ids = start(model, [[9], [1]])
    state = free(state, pad([ids[0]]))
    state, out = generate(model, state, pad([ids[0], ids[1], -1]), CONFIG)
    assert finishes(out)[0] == finishes(out)[2] == "failed"
    assert np.asarray(state.cache.error)[ids[0]] == 0


@pytest.mark.parametrize("bad", [-1, VOCAB, 2**31 - 1])
@pytest.mark.parametrize("place", [0, 9])
def test_a_token_outside_the_vocabulary_flags_its_branch_alone(bad: int, place: int) -> None:
    state, ids = start(MODEL, [[1], [2], [3]])
    prompt = [1] * 10
    prompt[place] = bad
    lengths = np.asarray(state.cache.length)
    # Chunks of 4: what comes before a bad token is not kept either.
    state, stepped = run_prefill(MODEL, state, ids[:2], [prompt, [4] * 10], chunk=4)
    assert np.asarray(stepped.ok).tolist()[:2] == [False, True]
    grown = np.asarray(state.cache.length) - lengths
    assert grown[ids].tolist() == [0, 10, 0, 0]
    assert state.cache.ledger.totals()["prefilled"] == 3 + 10
    with pytest.raises(BranchError, match=rf"branches \[{ids[0]}\] .*outside the model's vocab"):
        raise_errors(state.cache)

    state, stepped = step(MODEL, state, ids, [1, 1, bad, 1])
    assert np.asarray(stepped.ok).tolist() == [False, True, False, True]
    with pytest.raises(BranchError, match=rf"branches \[{ids[0]}, {ids[2]}\] .*outside"):
        raise_errors(state.cache)
    tokens, count = jnp.array([[1, bad]] * LANES), jnp.array([1, 1, 1, 2])
    state, _, ok = jax.jit(engine.score_tokens)(MODEL, state, ids, tokens, count)
    assert np.asarray(ok).tolist() == [False, True, False, False]  # nothing past a count counts
    debug.check(state.cache)
