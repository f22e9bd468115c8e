"""Trains the embedded model: `python -m dendrite_jax.tasks.game24.training --minutes 9 --out m`.

The number of steps is set once, from the speed of the first calls and the minutes given; with
`--steps` (the log names it) the same seed gives the same run again. The checkpoint written is the
best by the development set, never by the test set.
"""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
import jax
import jax.numpy as jnp

from dendrite_jax.models.config import ModelConfig
from dendrite_jax.tasks.game24.game.graph import (
    StateGraph,
    add_wide_states,
    build_graph,
    split_states,
)
from dendrite_jax.tasks.game24.training.checkpoint import save_checkpoint
from dendrite_jax.tasks.game24.training.dev_metrics import (
    BEAM_WIDTHS,
    DevMetrics,
    DevSet,
    random_scorer,
    search_rate,
)
from dendrite_jax.tasks.game24.training.network import Params
from dendrite_jax.tasks.game24.training.recipe import (
    StepMetrics,
    TrainOptions,
    init_state,
    llama_config,
    make_train_call,
)
from dendrite_jax.tasks.game24.training.sampling import Mix, Tables, device_tables
from dendrite_jax.tasks.game24.training.tokenizer_build import build_tokenizer

_TIMED_CALLS = 3
_EVALUATION_SHARE = 0.06
"""Of the time, kept back for the development scores when the number of steps is set."""

_DEFAULTS = TrainOptions()


class Reporter:
    """Scores parameters on the development set, logs, and keeps the best checkpoint on disk."""

    def __init__(
        self, dev: DevSet, config: ModelConfig, out: Path, record: dict[str, Any], seed: int
    ):
        self._dev, self._config, self._out = dev, config, out
        self._record, self._key = record, jax.random.key(seed)
        self._best = -1.0

    def report(self, params: Params, step: int, minutes: float) -> None:
        """Scores the bf16 rounding of some parameters, and writes them if they are the best."""
        rounded = jax.tree.map(lambda p: p.astype(jnp.bfloat16).astype(jnp.float32), params)
        metrics = self._dev.evaluate(rounded, self._key)
        score = _selection_score(metrics)
        best = score > self._best
        click.echo(f"  dev {_show(metrics)} score {score:.4f}{' *' if best else ''}")
        if best:
            self._best = score
            scored = {"step": step, "minutes": round(minutes, 2), "dev": metrics._asdict()}
            save_checkpoint(self._out, params, self._config, self._record | scored)


@click.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Checkpoint folder.")
@click.option("--minutes", default=9.0, show_default=True, help="Time limit, compiling included.")
@click.option("--steps", type=int, help="Exact number of steps instead of what the time allows.")
@click.option("--evaluations", default=8, show_default=True, help="Development scores in the run.")
@click.option("--hidden", default=256, show_default=True)
@click.option("--layers", default=4, show_default=True)
@click.option("--heads", default=4, show_default=True)
@click.option("--kv-heads", default=2, show_default=True)
@click.option("--intermediate", default=768, show_default=True)
@click.option("--wide-draws", default=2_000_000, show_default=True, help="Added 3-number states.")
@click.option("--seed", default=_DEFAULTS.seed, show_default=True)
@click.option("--rows", default=_DEFAULTS.rows, show_default=True)
@click.option("--json-rows", default=_DEFAULTS.json_rows, show_default=True)
@click.option("--learning-rate", default=_DEFAULTS.learning_rate, show_default=True)
@click.option("--weight-decay", default=_DEFAULTS.weight_decay, show_default=True)
@click.option("--warmup-steps", default=_DEFAULTS.warmup_steps, show_default=True)
@click.option(
    "--optimizer",
    type=click.Choice(["adamw", "muon"]),
    default=_DEFAULTS.optimizer,
    show_default=True,
)
@click.option("--policy-weight", default=_DEFAULTS.policy_weight, show_default=True)
@click.option("--verdict-weight", default=_DEFAULTS.verdict_weight, show_default=True)
@click.option("--ema-decay", default=_DEFAULTS.ema_decay, show_default=True)
@click.option("--steps-per-call", default=_DEFAULTS.steps_per_call, show_default=True)
@click.option("--compute-dtype", default=_DEFAULTS.compute_dtype, show_default=True)
@click.option(
    "--attention",
    type=click.Choice(["xla", "cudnn"]),
    default=_DEFAULTS.attention,
    show_default=True,
)
@click.option("--value-rows", default=Mix().value_rows, show_default=True, help="Share of rows.")
@click.option("--text-target-24", default=Mix().text_target_24, show_default=True)
@click.option("--value-target-24", default=Mix().value_target_24, show_default=True)
@click.option("--from-three", default=Mix().from_three, show_default=True)
@click.option("--solvable", default=Mix().solvable, show_default=True)
@click.option("--follow", default=Mix().follow, show_default=True)
@click.option("--wide", default=Mix().wide, show_default=True, help="Share in value rows.")
def train(out: Path, minutes: float, steps: int | None, evaluations: int, **flags: Any) -> None:
    """Trains the embedded Game-of-24 model and writes the best checkpoint by the dev set."""
    start = time.monotonic()
    shape = {name: flags.pop(name) for name in ("hidden", "layers", "heads", "kv_heads")}
    config = llama_config(**shape, intermediate=flags.pop("intermediate"))
    wide_draws = flags.pop("wide_draws")
    mix = Mix(**{name: flags.pop(name) for name in Mix._fields})
    options = replace(_DEFAULTS, mix=mix, **flags)

    graph = build_graph()
    split = split_states(graph)
    puzzles = [graph.state(index) for index in split.dev]
    dev = DevSet(puzzles, build_tokenizer(), config)
    control = [search_rate(puzzles, width, random_scorer(0)) for width in BEAM_WIDTHS]
    wide_graph, wide_split = add_wide_states(graph, split, wide_draws)
    tables = device_tables(wide_graph, wide_split)
    state = init_state(config, options)
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    record = {
        "parameters": size,
        "wide_draws": wide_draws,
        "options": asdict(options) | {"mix": mix._asdict()},
        "dev_search_with_random_values": control,
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
    }
    click.echo(f"{record} bf16 {2 * size / 1e6:.2f} MB, {_describe(wide_graph, tables)}")

    reporter = Reporter(dev, config, out, record, options.seed)
    train_call = make_train_call(config, options)
    calls, total = 0, None if steps is None else steps
    next_report = 1
    while True:
        state, metrics = train_call(state, tables, jnp.float32(total or 1e9))
        jax.block_until_ready(metrics)
        calls += 1
        done, elapsed = calls * options.steps_per_call, time.monotonic() - start
        if calls == 1:
            timed_from = time.monotonic()
        if total is None and calls == 1 + _TIMED_CALLS:
            seconds = (time.monotonic() - timed_from) / (_TIMED_CALLS * options.steps_per_call)
            left = minutes * 60 * (1 - _EVALUATION_SHARE) - elapsed
            total = done + max(0, int(left / seconds))
            total -= total % options.steps_per_call
            click.echo(f"{1000 * seconds:.2f} ms a step: --steps {total}")
        over = (total is not None and done >= total) or elapsed > minutes * 60
        if over or (total is not None and done >= next_report * total / evaluations):
            next_report += 1
            click.echo(f"{done} {elapsed:.0f} s {_show(metrics)}")
            reporter.report(state.average, done, elapsed / 60)
        if over:
            break
    click.echo(f"done after {time.monotonic() - start:.0f} s")


def _selection_score(metrics: DevMetrics) -> float:
    """What a checkpoint is chosen by: how well unseen values rank, and how well they steer."""
    return metrics.auc_first + sum(metrics.search) / len(metrics.search)


def _describe(graph: StateGraph, tables: Tables) -> str:
    return (
        f"{len(tables.puzzles)} puzzles, {len(tables.threes)} + {len(tables.wide)} states of three "
        f"numbers to train on, {len(graph.next_state)} moves"
    )


def _show(metrics: DevMetrics | StepMetrics) -> str:
    def number(value: Any) -> str:
        return "/".join(map(number, value)) if isinstance(value, tuple) else f"{float(value):.4g}"

    return " ".join(f"{name} {number(value)}" for name, value in metrics._asdict().items())


if __name__ == "__main__":
    train()
