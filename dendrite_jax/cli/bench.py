"""`dendrite bench`: the benchmarks that the README's numbers come from."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from dendrite_jax.cli.common import compile_cache_option, json_option, print_json
from dendrite_jax.cli.provenance import provenance

_json_out = click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="Write the JSON to a file too.",
)


@click.group()
def bench() -> None:
    """Measure this machine; each benchmark prints a table, or JSON with its environment.

    \b
    Examples:
      dendrite bench fork
      dendrite bench decode --json
      dendrite bench tree --out result.json
      dendrite bench solve --out result.json
    """


@bench.command()
@json_option
@_json_out
@compile_cache_option
def fork(as_json: bool, out: Path | None) -> None:
    """What a fork costs, against an empty call and against copying the cache."""
    _run("fork.cost", as_json, out)


@bench.command()
@json_option
@_json_out
@compile_cache_option
def decode(as_json: bool, out: Path | None) -> None:
    """Decode speed, against the memory bandwidth and against transformers."""
    _run("decode.loop", as_json, out)


@bench.command()
@json_option
@_json_out
@compile_cache_option
def solve(as_json: bool, out: Path | None) -> None:
    """Puzzles a minute, against the same search written with transformers."""
    _run("solve.puzzles", as_json, out)


@bench.command()
@json_option
@_json_out
@compile_cache_option
def grammar(as_json: bool, out: Path | None) -> None:
    """What a grammar costs, against masks that other libraries make on the host."""
    _run("grammar.table", as_json, out)


@bench.command()
@json_option
@_json_out
@compile_cache_option
def branches(as_json: bool, out: Path | None) -> None:
    """Prefill of one prompt, and decode of the branches that fork from it."""
    _run("decode.shared", as_json, out)


@bench.command()
@json_option
@_json_out
@compile_cache_option
def tree(as_json: bool, out: Path | None) -> None:
    """Search trees, against a prefill of every branch and against transformers."""
    _run("tree.table", as_json, out)


@bench.command()
@json_option
@_json_out
@compile_cache_option
def kernels(as_json: bool, out: Path | None) -> None:
    """Attention of a decode step on a GPU, against its floor, FlashInfer and jax's own."""
    _run("kernels.attention", as_json, out)


def _run(name: str, as_json: bool, out: Path | None) -> None:
    module: ModuleType = importlib.import_module(f"dendrite_jax.benchmarks.{name}")
    measured: dict[str, Any] = module.run()
    about = provenance()  # after the run, whose peers need the device before this process does
    about["options"].pop("out")  # where the file goes is no part of it
    environment = about["environment"] | measured.get("environment", {})
    result = about | measured | {"environment": environment}
    if out is not None:
        importlib.import_module("dendrite_jax.benchmarks.harness").save(result, out)
    if as_json:
        print_json(result)
    else:
        module.show(result)
