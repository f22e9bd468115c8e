"""What every benchmark needs: the environment, timing, tables and result files."""

from dendrite_jax.benchmarks.harness.report import (
    Timing,
    empty_call,
    environment,
    print_table,
    read_bandwidth,
    save,
    time_calls,
)

__all__ = [
    "Timing",
    "empty_call",
    "environment",
    "print_table",
    "read_bandwidth",
    "save",
    "time_calls",
]
