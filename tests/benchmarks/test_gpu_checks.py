"""The checks of compiled loops, on a CPU: that they hold for sound functions and see wrong ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.tiny import TINY
from dendrite_jax.benchmarks import gpu_checks
from dendrite_jax.benchmarks.checks import cases
from dendrite_jax.benchmarks.checks.cases import CALLS, Case
from dendrite_jax.benchmarks.harness import shapes
from dendrite_jax.benchmarks.harness.counts import CountError, check_counts
from dendrite_jax.cache import CacheConfig, init, uniform_shape
from dendrite_jax.models import Decoder


@pytest.fixture(scope="module")
def every_case() -> Iterator[list[Case]]:
    """All cases, of a tiny shape, to be compiled without a GPU's options."""
    with pytest.MonkeyPatch.context() as patch:
        config = replace(TINY, vocab_size=cases.VOCAB_SIZE)
        patch.setitem(shapes.SHAPES, cases.SHAPE, config)
        patch.setattr(gpu_checks, "options", lambda *_, **__: None)
        yield cases.all_cases()


@pytest.fixture(scope="module")
def case(every_case: list[Case]) -> tuple[Case, Decoder, Any]:
    """A generation of four lanes, its model and its compiled functions."""
    (case,) = (case for case in every_case if case.name == "generate, 4 lanes, stop tokens")
    model = shapes.random_model(cases.SHAPE, jnp.float32)
    return case, model, gpu_checks.compile_case(case, model, cases.token_table(), ())


def test_every_search_and_generate_has_a_case(every_case: list[Case]) -> None:
    names = {case.name.split(",")[0] for case in every_case}
    searches = {name for name, *_ in cases.searches(4)}
    assert names == {"generate"} | searches
    assert len(searches) == 10
    for variant in ("grammar", "vmap", "reward model", "many lanes", "2³¹ elements"):
        assert any(variant in case.name for case in every_case)


def test_a_sound_function_passes(case: tuple[Case, Decoder, Any]) -> None:
    row, paths = gpu_checks.check(case[0], case[2], case[1])
    assert row["wrong_calls"] == 0
    assert row["states_equal"]
    assert not row["error"]
    assert len(paths) == CALLS * 4
    worst = gpu_checks.worst_difference(case[1], paths)
    # float32 sums of 32 products, in another order.
    assert worst < 1e-4
    assert gpu_checks.reasons_of(row | {"paths": len(paths), "worst_difference": worst}) == []


def test_a_call_that_runs_no_step_is_seen(case: tuple[Case, Decoder, Any]) -> None:
    compiled, calls = case[2], []

    def right_once(model: Any, pieces: Any, state: Any, roots: Any, key: Any) -> Any:
        calls.append(roots)
        idle = roots if len(calls) == 1 else jnp.full_like(roots, -1)
        return compiled.captured(model, pieces, state, idle, key)

    row, paths = gpu_checks.check(case[0], compiled._replace(captured=right_once), case[1])
    assert row["wrong_calls"] == CALLS - 1
    assert row["empty_calls"] == CALLS - 1
    reasons = gpu_checks.reasons_of(row | {"paths": len(paths), "worst_difference": 0.0})
    assert f"{CALLS - 1} of {CALLS} calls differ without command buffers" in reasons


def test_wrong_log_probabilities_are_seen(case: tuple[Case, Decoder, Any]) -> None:
    _, paths = gpu_checks.check(case[0], case[2], case[1])
    wrong = [paths[0]._replace(logprob=paths[0].logprob - 0.1 * paths[0].tokens.size)]
    assert np.isclose(gpu_checks.worst_difference(case[1], wrong), 0.1, atol=1e-3)
    assert gpu_checks.worst_difference(case[1], [paths[0]._replace(logprob=np.nan)]) == np.inf


def test_counts_that_differ_from_what_was_timed_are_an_error() -> None:
    cache = init(CacheConfig(1, 1, 1), uniform_shape(num_layers=1, num_kv_heads=1, head_dim=1))
    before = cache.ledger.totals()
    after = cache.replace(ledger=cache.ledger.add(steps=24))
    check_counts(before, after, steps=24, generated=0)
    with pytest.raises(CountError, match="steps is 24 by the ledger; what was timed says 120"):
        check_counts(before, after, steps=120)
