"""What a report needs, to be run again: the command, its options, where and with what it ran."""

from __future__ import annotations

import importlib.metadata
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "safetensors", "tokenizers", "llguidance")
"""Whose versions decide what comes out."""

_COMPILING = "/jax/core/compile/"
"""What the names of JAX's events of tracing, lowering and compiling begin with."""


def provenance(**more: Any) -> dict[str, Any]:
    """Facts about the running command, as JSON values; merge them into its `--json` object.

    Args:
      more: options of the environment that the command chose itself, such as a model's name.

    Returns:
      command: the words that called it, without options.
      options: each option and argument by name, defaults included; so method, sizes, seed, model.
      environment: date, version, commit, python, jax, device, platform, cores and XLA flags, as in
        benchmarks; with `packages` (see `versions`), `devices` (their number), and `more`.
    """
    import jax

    from dendrite_jax.benchmarks.harness import environment

    context = click.get_current_context()
    return {
        "command": context.command_path,
        "options": {name: _json_value(value) for name, value in context.params.items()},
        "environment": {
            **environment(),
            "packages": versions(),
            "devices": jax.device_count(),
            **more,
        },
    }


def versions() -> dict[str, str | None]:
    """The version of each of `PACKAGES`, None where it is not installed."""
    return {name: version_of(name) for name in PACKAGES}


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


class Stopwatch:
    """Seconds since it was made, and those of them in which JAX traced, lowered or compiled."""

    def __init__(self) -> None:
        self._started = time.time()  # the clock that JAX's events are told in
        self._spans: list[tuple[float, float]] = []

    def seconds(self) -> dict[str, float]:
        """`seconds` until now, and `seconds_without_compilation`, for a `--json` object.

        Compiling includes reading a compiled program back from the disk. Programs that are compiled
        at the same time count once.
        """
        total = time.time() - self._started
        return {"seconds": total, "seconds_without_compilation": total - _covered(self._spans)}

    def _on_event(self, event: str, start_time: float, end_time: float, **_: Any) -> None:
        if event.startswith(_COMPILING):
            self._spans.append((start_time, end_time))


@contextmanager
def stopwatch() -> Iterator[Stopwatch]:
    """A `Stopwatch` from here on, which sees what compiles within the body."""
    watch = Stopwatch()
    from jax import monitoring

    monitoring.register_event_time_span_listener(watch._on_event)
    try:
        yield watch
    finally:
        monitoring.unregister_event_time_span_listener(watch._on_event)


def _covered(spans: list[tuple[float, float]]) -> float:
    """Seconds that lie in any of the spans (start, end)."""
    covered, until = 0.0, float("-inf")
    for start, end in sorted(spans):
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered


def _json_value(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(value)  # as a string: JSON has no such number, but `float` reads it
    return list(value) if isinstance(value, tuple) else value
