"""`dendrite generate`: continuations of a prompt by any supported checkpoint."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from dendrite_jax.cli.common import (
    compile_cache_option,
    draw_each,
    dtype_option,
    json_option,
    model_option,
    print_json,
    seed_option,
    working,
)
from dendrite_jax.cli.grammar_options import grammar_options, path_name
from dendrite_jax.cli.loading import loading_bar
from dendrite_jax.cli.provenance import provenance, stopwatch

if TYPE_CHECKING:
    from dendrite_jax.grammar import Grammar
    from dendrite_jax.serving import Completion, Engine


@click.command()
@model_option
@click.option("--prompt", required=True, help="The text to continue.")
@click.option("-n", "num_branches", default=1, show_default=True, help="Continuations.")
@click.option("--max-new-tokens", default=64, show_default=True)
@click.option("--temperature", default=1.0, show_default=True, help="0 takes the likeliest token.")
@click.option("--top-k", type=int, default=None)
@click.option("--top-p", type=float, default=None)
@click.option("--min-p", type=float, default=None)
@click.option("--repetition-penalty", type=float, default=None)
@click.option("--stop", "stop_strings", multiple=True, help="A text that ends a continuation.")
@dtype_option
@click.option(
    "--max-context",
    type=int,
    default=None,
    help="Tokens a branch can hold.  [default: 2048, or the model's own limit if that is less]",
)
@grammar_options
@seed_option
@json_option
@compile_cache_option
def generate(
    model: str,
    prompt: str,
    num_branches: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    min_p: float | None,
    repetition_penalty: float | None,
    stop_strings: tuple[str, ...],
    dtype: str | None,
    max_context: int | None,
    grammar: Grammar | None,
    seed: int,
    as_json: bool,
) -> None:
    """Continue a prompt; the prompt is run once however many continuations are asked for.

    \b
    Examples:
      dendrite generate --model ./Llama-3.2-1B --prompt "Once upon a time" -n 4
      dendrite generate --model Qwen/Qwen3-0.6B --prompt "def f(x):" --temperature 0 --json
      dendrite generate --model ./Llama-3.2-1B --prompt "Ada, 36:" --json-schema person.json
      dendrite generate --model ./Llama-3.2-1B --prompt "Is 7 prime?" --choice yes,no
    """
    if num_branches < 1:
        raise ValueError(f"-n is {num_branches}; it must be at least 1")
    console = Console(stderr=True)
    with stopwatch() as watch:
        from dendrite_jax.engine import Sampling
        from dendrite_jax.serving.validation import check_prompt, check_sampling, check_text

        # Bad options are refused before the weights are read, or before anything compiles.
        sampling = Sampling(repetition_penalty, temperature, top_k, top_p, min_p)
        check_sampling(sampling)
        check_text(prompt)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
        engine = _load(model, dtype, max_context, num_branches + 1, console, quiet=as_json)
        ids = engine.tokenizer.encode(prompt, add_special_tokens=True)
        check_prompt(ids, engine.model.vocab_size, engine.config.max_context)
        compiled = None if grammar is None else engine.compile(grammar)
        with working(console, "compiling and running the prompt", quiet=as_json):
            root = engine.prompt(ids, seed=seed, grammar=compiled)
            branches = engine.fork(root, num_branches)
        rounds = engine.stream(branches, max_new_tokens, sampling, stop_strings)
        if not as_json:
            draw_each(Console(), (_text(prompt, completions) for completions in rounds))
            return
        *_, completions = rounds
    report = {"completions": [asdict(item) for item in completions], "stats": engine.stats()}
    if compiled is not None:
        report["grammar"] = {"path": path_name(compiled)}
    print_json(report | watch.seconds() | provenance())


def _load(
    model: str,
    dtype: str | None,
    max_context: int | None,
    num_slots: int,
    console: Console,
    quiet: bool,
) -> Engine:
    from dendrite_jax.serving import Engine

    with loading_bar(console, quiet) as progress:
        return Engine.load(model, dtype, progress, max_context=max_context, num_slots=num_slots)


def _text(prompt: str, completions: list[Completion]) -> Text:
    """The continuations; a Text, since `rich` would read markup in a plain string."""
    return Text("\n\n".join(f"{prompt}{completion.text}" for completion in completions))
