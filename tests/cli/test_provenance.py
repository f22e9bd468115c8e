"""What reports say of where they come from, and the seconds beside it."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path

import click
import jax
import jax.numpy as jnp
import pytest

from cli.conftest import Dendrite
from dendrite_jax.cli import provenance as module
from dendrite_jax.cli.common import method_options, model_option, seed_option
from dendrite_jax.cli.provenance import provenance, stopwatch


def test_a_report_names_all_options_and_versions() -> None:
    @click.command("dendrite")
    @model_option
    @method_options
    @seed_option
    @click.option("--stop", multiple=True, default=("\n",))
    @click.option("--hopeless", default=-math.inf)
    @click.option("--schema", type=click.Path(path_type=Path))
    def command(**_: object) -> None:
        click.echo(json.dumps(provenance(weights="random"), allow_nan=False))

    from click.testing import CliRunner

    given = ["--model", "m", "--method", "beam", "--breadth", "3", "--schema", "a/b"]
    ran = CliRunner().invoke(command, given, catch_exceptions=False)
    found = json.loads(ran.output)
    assert found["command"] == "dendrite"
    assert found["options"] == {
        **{"model": "m", "method": "beam", "breadth": 3, "seed": 0, "stop": ["\n"]},
        **{"proposals": None, "expansions": None, "simulations": None, "schema": "a/b"},
        **{"width": None, "tokens": None, "hopeless": "-Infinity"},
    }
    environment = found["environment"]
    assert environment["packages"]["jax"] == environment["jax"] == jax.__version__
    assert environment["device"] == jax.devices()[0].device_kind
    assert environment["devices"] == jax.device_count()
    assert environment["weights"] == "random"
    assert environment["commit"]


def test_seconds_with_and_without_compilation() -> None:
    with stopwatch() as watch:
        jax.jit(lambda x: x * 3 + 1)(jnp.ones(3)).block_until_ready()
    found = watch.seconds()
    assert 0 <= found["seconds_without_compilation"] < found["seconds"]
    compiled = list(watch._spans)
    assert compiled
    assert all(start <= end <= time.time() for start, end in compiled)
    jax.jit(lambda x: x * 5 - 1)(jnp.ones(3))
    assert watch._spans == compiled  # it has stopped listening


@pytest.mark.parametrize(
    ("spans", "seconds"),
    [
        ([], 0),
        ([(1, 3)], 2),
        ([(5, 6), (1, 3)], 3),
        ([(1, 4), (2, 3)], 3),
        ([(1, 4), (3, 6), (6, 7)], 6),
    ],
)
def test_programs_compiled_at_once_count_once(
    spans: list[tuple[float, float]], seconds: float
) -> None:
    assert module._covered(spans) == seconds


def test_a_benchmarks_report_names_its_command(
    dendrite: Dendrite, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from dendrite_jax.benchmarks.fork import cost

    measured = {"environment": {"date": "then"}, "rows": []}
    monkeypatch.setattr(cost, "run", lambda: measured)
    file = tmp_path / "fork.json"
    ran = dendrite("bench", "fork", "--json", "--out", str(file))
    assert (ran.code, ran.err) == (0, "")
    found = json.loads(ran.out)
    assert found == json.loads(file.read_text())
    assert found["command"] == "dendrite bench fork"
    assert found["options"] == {"as_json": True}
    assert found["environment"]["date"] == "then"
    assert found["environment"]["packages"]["jax"] == jax.__version__
    assert found["rows"] == []
