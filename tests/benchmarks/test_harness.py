"""The harness of the benchmarks; no time is judged."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import dendrite_jax
from dendrite_jax.benchmarks import harness


def test_the_environment_says_where_a_result_is_from() -> None:
    found = harness.environment()
    assert set(found) == {
        *("date", "version", "commit", "python", "jax", "device", "platform", "cores", "xla_flags")
    }
    assert found["version"] == dendrite_jax.__version__
    assert found["jax"] == jax.__version__
    assert found["platform"] == jax.default_backend()
    assert json.loads(json.dumps(found)) == found


def test_timings_are_percentiles() -> None:
    timing = harness.Timing.of([float(n) for n in range(101)])
    assert timing == harness.Timing(p50=50.0, p99=99.0)


def test_calls_are_made_as_often_as_asked() -> None:
    calls = itertools.count()
    timing = harness.time_calls(lambda: jnp.full((), next(calls)), repeats=4, warm_up=2)
    assert next(calls) == 6
    assert 0 < timing.p50 <= timing.p99


def test_a_result_is_saved_as_json_in_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "new" / "result.json"
    result = {"rows": [{"a": 1, "b": None}], "name": "µ"}
    harness.save(result, path)
    assert json.loads(path.read_text()) == result


def test_a_table_shows_every_value(capsys: pytest.CaptureFixture[str]) -> None:
    harness.print_table("title", [{"name": "x", "small": 0.12345, "large": 12345.6, "no": None}])
    out = capsys.readouterr().out
    for part in ("title", "name", "0.123", "12,346", "–"):
        assert part in out
