"""What every benchmark needs: the environment, timing, tables and result files."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

import dendrite_jax


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated calls, each waited for."""

    p50: float
    p99: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        return cls(float(np.percentile(seconds, 50)), float(np.percentile(seconds, 99)))


def environment() -> dict[str, Any]:
    """Where and with what a result was measured."""
    device = jax.devices()[0]
    return {
        "date": time.strftime("%Y-%m-%d"),
        "version": dendrite_jax.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "device": device.device_kind,
        "platform": device.platform,
        "cores": os.cpu_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def time_calls(call: Callable[[], Any], repeats: int, warm_up: int = 3) -> Timing:
    """Times `call`, which starts device work and returns what to wait for."""
    seconds = []
    for index in range(warm_up + repeats):
        start = time.perf_counter()
        jax.block_until_ready(call())
        if index >= warm_up:
            seconds.append(time.perf_counter() - start)
    return Timing.of(seconds)


def empty_call(repeats: int = 200) -> Timing:
    """One jitted `x + 1`, waited for: the floor of anything that Python calls."""
    increment = jax.jit(lambda x: x + 1)
    x = jnp.zeros((), jnp.float32)
    return time_calls(lambda: increment(x), repeats)


def read_bandwidth(megabytes: int = 2048, repeats: int = 5) -> float:
    """Bytes a second of reading a large array: few and many passes, their difference taken."""
    x = jnp.ones(megabytes * 2**20 // 4, jnp.float32)

    @jax.jit(static_argnums=1)
    def read(x: jax.Array, passes: int) -> jax.Array:
        total = jnp.float32(0)
        for _ in range(passes):
            # Depends on the last total, so that no pass can be left out.
            total = jnp.max(jnp.abs(x - total))
        return total

    few, many = 2, 12
    fast = time_calls(lambda: read(x, few), repeats).p50
    slow = time_calls(lambda: read(x, many), repeats).p50
    return (many - few) * x.nbytes / (slow - fast)


def print_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Prints rows that share their keys."""
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    Console().print(table)


def save(result: dict[str, Any], path: Path) -> None:
    """Writes a result as JSON, one value a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "–" if value is None else str(value)


def _commit() -> str | None:
    """The commit of this checkout, with a `+` if it has changes; None outside of one."""
    folder = Path(__file__).resolve().parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
