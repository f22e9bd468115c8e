"""Timing on an accelerator: calls in a loop on the device, and the difference of two lengths.

A launch from the host costs more than the kernels that are timed, so a timed body is repeated by
a loop inside jit, captured in command buffers, and the time of few turns is taken from the time of
many. Bodies rotate over enough data that the last-level cache does not hold it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp

from dendrite_jax.benchmarks.harness.counts import CountError
from dendrite_jax.serving.compilation import loop_options

CACHE_BYTES = 200e6
"""Rotate over at least this many bytes: four times an H100's last-level cache."""

READ_BANDWIDTH = 2.95e12
"""Bytes a second that one H100 reads; the floors of kernels are against it."""

PARALLEL = min(12, os.cpu_count() or 1)
"""How many functions are compiled at a time."""


def looped(body: Callable[..., Any]) -> Callable[..., Any]:
    """`body(carry, *data) -> carry`, repeated: f(turns, carry, *data) → carry, turns that ran."""

    def run(turns: Any, carry: Any, *data: Any) -> Any:
        def turn(_: Any, loop: tuple[Any, Any]) -> tuple[Any, Any]:
            return body(loop[0], *data), loop[1] + 1

        return jax.lax.fori_loop(0, turns, turn, (carry, jnp.int32(0)))

    return run


def compile_all(jobs: dict[Any, tuple[Callable[..., Any], tuple[Any, ...]]]) -> dict[Any, Any]:
    """Compiles `looped(body)` for each (body, arguments after `turns`), several at a time.

    Returns:
      For each key the compiled function, or the exception that compiling raised.
    """

    def build(job: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
        body, arguments = job
        try:
            jitted = jax.jit(looped(body), compiler_options=loop_options())
            return jitted.lower(jnp.int32(1), *arguments).compile()
        except Exception as error:
            return error

    with ThreadPoolExecutor(PARALLEL) as pool:
        return dict(zip(jobs, pool.map(build, jobs.values()), strict=True))


def seconds_per_turn(compiled: Any, arguments: tuple[Any, ...], least: float = 4e-3) -> float:
    """Median device seconds of one turn of a function from `compile_all`.

    Raises:
      CountError: a call ran another number of turns.
    """

    def elapsed(turns: int) -> float:
        start = time.perf_counter()
        _, ran = jax.block_until_ready(compiled(jnp.int32(turns), *arguments))
        seconds = time.perf_counter() - start
        if int(ran) != turns:
            raise CountError(f"a loop of {turns} turns ran {int(ran)}")
        return seconds

    elapsed(2)
    few = 2
    rough = max((elapsed(6) - elapsed(2)) / 4, 2e-6)
    many = few + max(4, int(least / rough))
    samples = [(elapsed(many) - elapsed(few)) / (many - few) for _ in range(5)]
    return statistics.median(samples)
