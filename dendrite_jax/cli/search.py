"""`dendrite search`: a tree search from a prompt by any supported checkpoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console
from rich.text import Text

from dendrite_jax.cli.common import (
    METHODS,
    compile_cache_option,
    drawing,
    dtype_option,
    html_option,
    json_option,
    method_options,
    model_option,
    seed_option,
    time_limit_option,
    working,
)
from dendrite_jax.cli.loading import loading_bar
from dendrite_jax.cli.provenance import Stopwatch, provenance, stopwatch

if TYPE_CHECKING:
    from dendrite_jax.search import Scorer, SearchResult
    from dendrite_jax.search.export import Decode
    from dendrite_jax.search.registry import Search
    from dendrite_jax.serving import Engine
    from dendrite_jax.text import Tokenizer


_WITHOUT_EFFECT: dict[str, set[str]] = {
    "depth": {"beam_search"},
    "thought_tokens": {"beam_search"},
    "stop_strings": {"beam_search"},
    "verdict": {"beam", "beam_search"},
    "hopeless": set(METHODS) - {"depth_first", "tot-dfs"},
    "temperature": {"greedy", "beam_search"},
    "top_k": {"greedy", "beam_search"},
    "top_p": {"greedy", "beam_search"},
}
"""Options, and the methods that do not look at them."""


@click.command()
@model_option
@click.option("--prompt", required=True, help="The text to search from.")
@method_options
@click.option("--depth", default=3, show_default=True, help="Thoughts on a path, at most.")
@click.option("--thought-tokens", default=32, show_default=True, help="Tokens of one, at most.")
@click.option(
    "--stop",
    "stop_strings",
    multiple=True,
    default=("\n",),
    help="A text that ends a thought; a newline by default.",
)
@click.option(
    "--verdict",
    type=(str, str),
    default=None,
    metavar="GOOD BAD",
    help="Score a thought by how much likelier GOOD is than BAD as the next word, not by the mean "
    "log-probability of its tokens.",
)
@click.option(
    "--hopeless",
    default=-math.inf,
    show_default=True,
    help="A thought with a lower score is a dead end: depth_first.",
)
@click.option("--temperature", default=1.0, show_default=True, help="0 takes the likeliest token.")
@click.option("--top-k", type=int, default=None)
@click.option("--top-p", type=float, default=None)
@dtype_option
@time_limit_option
@seed_option
@json_option
@html_option
@compile_cache_option
def search(
    model: str,
    prompt: str,
    method: str,
    sizes: dict[str, int],
    depth: int,
    thought_tokens: int,
    stop_strings: tuple[str, ...],
    verdict: tuple[str, str] | None,
    hopeless: float,
    temperature: float,
    top_k: int | None,
    top_p: float | None,
    dtype: str | None,
    time_limit: float | None,
    seed: int,
    as_json: bool,
    html: Path | None,
) -> None:
    """Search the continuations of a prompt, a thought (such as a line) at a time.

    Ctrl-C ends the search and keeps the best so far.

    \b
    Examples:
      dendrite search --model ./Llama-3.2-1B --prompt "Three facts about owls:"
      dendrite search --model Qwen/Qwen3-0.6B --prompt "Q: 17 * 23? A:" --breadth 3 --json
      dendrite search --model ./m --prompt "..." --verdict " sure" " unlikely" --html tree.html
    """
    _check_effect(method)
    with stopwatch() as watch:
        from dendrite_jax.engine import Sampling, StopRules
        from dendrite_jax.models import load
        from dendrite_jax.search.export import to_html, to_json
        from dendrite_jax.serving import Engine
        from dendrite_jax.serving.text_search import ThoughtShape, text_search
        from dendrite_jax.serving.validation import check_prompt, check_text

        shape = ThoughtShape(thought_tokens, depth, hopeless)
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
        # Bad options are refused before the weights are read; the stop rules need the vocabulary.
        plan = text_search(
            method, StopRules.of(), (), thoughts=shape, sampling=sampling, sizes=sizes
        )
        check_text(prompt)
        for field, texts in (("--stop", stop_strings), ("--verdict", verdict or ())):
            for text in texts:
                check_text(text, field)
        console = Console(stderr=True)
        with loading_bar(console, quiet=as_json) as progress:
            pretrained = load(model, dtype, progress)
        tokenizer = pretrained.tokenizer
        ids = tokenizer.encode(prompt, add_special_tokens=True)
        check_prompt(ids, pretrained.model.vocab_size, len(ids))
        engine = Engine(
            *pretrained, max_context=len(ids) + plan.path_tokens, num_slots=plan.config.num_slots
        )
        bound = text_search(
            method,
            engine.stop_rules(stop_strings),
            tokenizer.eos_ids,
            thoughts=shape,
            score=_scorer(tokenizer, verdict),
            sampling=sampling,
            sizes=sizes,
        )
        with working(console, "compiling and running the prompt", quiet=as_json):
            root = engine.prompt(ids, seed=seed)

        def decode(tokens: Sequence[int]) -> str:
            return tokenizer.decode(tokens, continuation=True)

        found = _run(engine, root, bound, seed, time_limit, decode, prompt, quiet=as_json)
    about = _about(method, sizes, seed, model, watch)
    if html is not None:
        page = to_html(found, decode=decode, title=prompt, about=about)
        html.write_text(page, encoding="utf-8")
    if as_json:
        print(to_json(found, decode=decode, title=prompt, about=about))
    else:
        _print_answers(found, decode, prompt)


def _about(
    method: str, sizes: dict[str, int], seed: int, model: str, watch: Stopwatch
) -> dict[str, Any]:
    """What it takes to run this again, and the seconds it took."""
    from dendrite_jax.search.registry import sizes_of

    return {
        "method": method,
        "sizes": sizes_of(method) | sizes,
        "seed": seed,
        "model": model,
        **watch.seconds(),
        **provenance(),
    }


def _check_effect(method: str) -> None:
    """Raises ValueError for an option on the command line that the method does not look at."""
    context = click.get_current_context()
    for name, methods in _WITHOUT_EFFECT.items():
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and method in methods:
            option = "--stop" if name == "stop_strings" else f"--{name.replace('_', '-')}"
            raise ValueError(f"{option} has no effect on method {method!r}")


def _scorer(tokenizer: Tokenizer, verdict: tuple[str, str] | None) -> Scorer:
    """Mean log-likelihood, or the model's own verdict."""
    from dendrite_jax.search import ValueTokens, mean_loglikelihood

    if verdict is None:
        return mean_loglikelihood
    first_tokens = []
    for word in verdict:
        ids = tokenizer.encode(word)
        if not ids:
            raise ValueError(f"--verdict: the tokenizer makes no token of {word!r}")
        first_tokens.append(ids[0])
    good, bad = first_tokens
    if good == bad:
        raise ValueError(f"--verdict: {verdict[0]!r} and {verdict[1]!r} begin with the same token")
    return ValueTokens.of((good, bad), (1.0, 0.0))


def _run(
    engine: Engine,
    root: int,
    search: Search,
    seed: int,
    time_limit: float | None,
    decode: Decode,
    title: str,
    quiet: bool,
) -> SearchResult:
    """Runs the search, drawing the tree after each part of it."""
    from dendrite_jax.search.export import to_rich
    from dendrite_jax.serving.text_search import search_from

    with drawing(Console(), quiet) as draw:

        def watch(result: SearchResult) -> None:
            draw(to_rich(result, decode=decode, title=title))

        shown = None if quiet else watch
        return search_from(engine, root, search, seed, watch=shown, time_limit=time_limit)


def _print_answers(found: SearchResult, decode: Decode, title: str) -> None:
    from dendrite_jax.search.export import document

    console = Console()
    report = document(found, decode=decode, title=title)
    for answer in report["answers"]:
        console.print(Text(f"\n{float(answer['value']):.4g}\n{title}{answer['text']}"))
    if not report["answers"]:
        console.print(f"\nno answer found: {report['reason']}", soft_wrap=True)
    ledger = report["ledger"]
    console.print(
        f"\n{len(report['nodes']) - 1} nodes, {ledger['forks']} forks, "
        f"{ledger['generated']} tokens generated, {ledger['reused']} not recomputed thanks to forks"
        + ("; stopped growing for want of room" if report["at_capacity"] else "")
        + ("; cut before its end" if report["cut"] else "")
    )
