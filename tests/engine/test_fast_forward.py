"""Runs of forced tokens in one step give what one token a step gives, in fewer steps."""

from __future__ import annotations

import functools
import re

import jax
import numpy as np
import pytest

from dendrite_jax import grammar as gr
from dendrite_jax.engine import (
    FINISH_NAMES,
    GenerateConfig,
    Generated,
    Sampling,
    State,
    StopRules,
    compile_stop_strings,
)
from engine.constraint_programs import (
    CACHE,
    TOKENS,
    constrain,
    generate,
    lanes_of,
    model,
    opened,
    prompt,
    regex,
    text_of,
)
from engine.programs import PROMPT, branch_tokens, pad, run_prefill

pytestmark = pytest.mark.slow

# Bytes that occur in no longer token, so that the text around the choices is forced.
PATTERNS = ["(k|j)q#q#q#w(k|j)#q#", "q#[kj]{2}#q#q#q#q#q#q#q#"]
LIMIT = 20
PLAIN = Sampling(1.0, 1.5, len(TOKENS), 1.0, 0.0)
"""Every knob is on, so that all tests share two compilations."""
CONFIG = GenerateConfig(LIMIT, top_logprobs=2, return_hidden=True)
FAST = GenerateConfig(LIMIT, top_logprobs=2, return_hidden=True, fast_forward=4)


@functools.cache
def table() -> gr.CompiledGrammar:
    return gr.stack([regex(pattern) for pattern in PATTERNS])


def run(
    config: GenerateConfig,
    stop_token: bytes = b"Z",
    stop_string: str = "----",
    held: int = 1,
    lanes: int = 3,
    sampling: Sampling = PLAIN,
) -> tuple[State, Generated]:
    """Two constrained lanes and perhaps a free one, after `held` letters each."""
    stop = StopRules.of([TOKENS.index(stop_token)], compile_stop_strings([stop_string], TOKENS))
    state, ids = opened("abc")
    for start in range(1, held, PROMPT):
        count = min(PROMPT, held - start)
        state, _ = run_prefill(model(), state, ids[:3], [prompt("x" * count)] * 3)
    state = constrain(state, ids, table(), np.array([0, 1, gr.NO_GRAMMAR, gr.NO_GRAMMAR], np.int32))
    state, out = generate(model(), state, pad(ids[:lanes]), config, sampling, stop)
    return state, jax.device_get(out)


def assert_equal(fast: Generated, slow: Generated) -> None:
    for name in ("tokens", "length", "finish", "string_state", "top_tokens", "hidden"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(slow, name), err_msg=name)
    for name in ("raw_logprobs", "logprobs", "top_raw_logprobs"):
        np.testing.assert_allclose(getattr(fast, name), getattr(slow, name), atol=1e-5)


def finishes(out: Generated) -> list[str]:
    return [FINISH_NAMES[reason] for reason in out.finish.tolist()]


def test_it_gives_the_same_in_fewer_steps() -> None:
    state, slow = run(CONFIG)
    fast_state, fast = run(FAST)
    assert_equal(fast, slow)
    assert finishes(fast) == ["stop_token", "stop_token", "length", "failed"]
    for lane, pattern in enumerate(PATTERNS):
        assert re.fullmatch(pattern, text_of(lanes_of(fast)[lane]).decode())
    held, fast_held = (branch_tokens(s, pad(range(3))) for s in (state, fast_state))
    np.testing.assert_array_equal(held[1], fast_held[1])
    for lane in range(3):
        length = held[1][lane]
        np.testing.assert_array_equal(held[0][lane, :length], fast_held[0][lane, :length])
    counted, fast_counted = (s.cache.ledger.totals() for s in (state, fast_state))
    assert counted["generated"] == fast_counted["generated"] == int(slow.length.sum())


def test_a_choice_and_the_run_after_it_are_one_step() -> None:
    """The longer lane takes 20 tokens: q#, k, k#q#q, #q#q#, q#q#q, # and the end."""
    (slow_state, slow), (state, _) = run(CONFIG, lanes=2), run(FAST, lanes=2)
    assert slow.length[1] == 20
    steps, fast_steps = (held.cache.ledger.totals()["steps"] for held in (slow_state, state))
    assert steps - fast_steps == 20 - 7


@pytest.mark.parametrize("stopped_at", [b"w", b"#"])
def test_a_stop_token_inside_a_run_ends_it(stopped_at: bytes) -> None:
    slow, fast = (run(config, stopped_at)[1] for config in (CONFIG, FAST))
    assert_equal(fast, slow)
    assert finishes(fast)[0] == "stop_token"
    assert text_of(lanes_of(fast)[0]).endswith(stopped_at)


def test_a_stop_string_inside_a_run_ends_it() -> None:
    slow, fast = (run(config, stop_string="#q#w")[1] for config in (CONFIG, FAST))
    assert_equal(fast, slow)
    assert finishes(fast)[0] == "stop_string"


@pytest.mark.parametrize("left", [3, 8])
def test_a_run_stops_where_the_context_does(left: int) -> None:
    slow, fast = (run(config, held=CACHE.max_context - left)[1] for config in (CONFIG, FAST))
    assert_equal(fast, slow)
    assert finishes(fast)[:2] == ["failed", "failed"]
    assert fast.length[:2].tolist() == [left, left]


def test_sampling_knobs_change_no_forced_token() -> None:
    knobs = Sampling(1.7, 0.8, 3, 0.5, 0.2)
    slow, fast = (run(config, sampling=knobs)[1] for config in (CONFIG, FAST))
    assert_equal(fast, slow)
    assert prompt("q#")[0] in fast.tokens[1]


def test_a_bad_width_is_refused() -> None:
    with pytest.raises(ValueError, match="fast_forward is -1; it must be at least 0"):
        GenerateConfig(4, fast_forward=-1)
