"""How many programs a script compiles whose numbers of branches and tokens change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import pytest

from dendrite_jax.engine import GREEDY, Sampling
from dendrite_jax.serving import Engine
from dendrite_jax.serving.lanes import capacity_bucket, lane_bucket

pytestmark = pytest.mark.slow

COMPILED = "/jax/core/compile/backend_compile_duration"
NUM_BLOCKS = 121
"""Of no other engine, so that no program of another test serves here."""


@contextmanager
def compilations() -> Iterator[list[str]]:
    """The list of what XLA compiled in the block, one entry a program, helpers included."""
    seen: list[str] = []

    def listen(event: str, duration_secs: float, **details: str | int) -> None:
        del duration_secs
        if event == COMPILED:
            seen.append(str(details))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


@pytest.fixture(scope="module")
def fresh(shared_engine: Engine) -> Engine:
    engine = Engine(
        shared_engine.model,
        shared_engine.tokenizer,
        max_context=192,
        num_slots=40,
        num_blocks=NUM_BLOCKS,
    )
    engine.prompt("The tree grows")  # branch 0, for all tests here
    return engine


STOPS: tuple[str | list[str], ...] = ("s", "stops", ["ot", "sti"], ["st", "t", "op"])
"""Automata of 2 to 6 states."""
# What a script does with n from 1 to 8, in this order, and how many programs it compiles in all.
SCRIPT: dict[str, tuple[Callable[[Engine, Any], object], int]] = {
    "forks": (lambda e, n: e.fork(0, n) if n <= 8 else None, 3),
    "forks given back": (lambda e, n: e.free([n]), 1),
    "branches": (lambda e, n: e.generate([0, *range(9, 8 + min(n, 6))], 3), 3),
    "tokens": (lambda e, n: e.generate([0], n), 0),
    "streams": (lambda e, n: list(e.stream([0], n, chunk=2)), 0),
    "stop tokens": (lambda e, n: e.generate([0], 2, stop_tokens=range(n % 4)), 0),
    "temperature": (lambda e, n: e.generate([0], 2, Sampling(temperature=n / 4)), 0),
    "temperatures": (
        lambda e, n: e.generate(
            [0], 2, Sampling(temperature=jax.device_put(np.array([n], np.float32)))
        ),
        0,
    ),
    "greedy": (lambda e, n: e.generate([0], 2, GREEDY), 0),
    "stop strings": (lambda e, n: e.generate([0], 1, stop_strings=STOPS[n % 4]), 1),
    "prompts": (lambda e, n: e.free([e.prompt("a " * n, seed=n)]), 0),
    "stats": (lambda e, n: e.stats(), 1),
}


def test_numbers_that_change_compile_a_few_programs(fresh: Engine) -> None:
    found = {}
    for name, (call, _) in SCRIPT.items():
        with compilations() as seen:
            for number in range(1, 9):
                call(fresh, number)
        found[name] = len(seen)
    assert found == {name: count for name, (_, count) in SCRIPT.items()}


def test_a_second_engine_of_the_same_shapes_compiles_nothing(fresh: Engine) -> None:
    with compilations() as seen:
        again = Engine(
            fresh.model, fresh.tokenizer, max_context=192, num_slots=40, num_blocks=NUM_BLOCKS
        )
        again.prompt("The tree grows")
        again.generate([0], 3)
    assert seen == []


def test_buckets() -> None:
    assert [lane_bucket(n) for n in range(10)] == [1, 1, 4, 4, 4, 8, 8, 8, 8, 16]
    assert [capacity_bucket(n) for n in (1, 7, 16, 17, 100, 2048)] == [16, 16, 16, 32, 128, 2048]
