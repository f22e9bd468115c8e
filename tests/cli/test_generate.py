"""`dendrite generate` with a tiny checkpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from cli.conftest import Dendrite

NEW = 6
COMPILES = "dendrite: compiling and running the prompt\n"
SIZES = ("--max-new-tokens", str(NEW), "--max-context", "64")


@pytest.mark.slow
def test_greedy_continuations_are_equal_and_the_prompt_is_run_once(
    dendrite: Dendrite, checkpoint: str
) -> None:
    arguments = ("--prompt", "The tree", "-n", "2", "--temperature", "0", *SIZES)
    ran = dendrite("generate", "--model", checkpoint, *arguments, "--json")
    assert (ran.code, ran.err) == (0, "")
    (line,) = ran.out.splitlines()
    printed = json.loads(line)
    first, second = printed["completions"]
    assert first["tokens"] == second["tokens"]
    assert len(first["tokens"]) == len(first["logprobs"]) == len(first["raw_logprobs"]) == NEW
    assert first["finish"] == "length"
    stats = printed["stats"]
    assert stats["forks"] == 2
    assert stats["generated"] == 2 * NEW
    assert stats["reused"] == 2 * stats["prefilled"]
    assert 0 < printed["seconds_without_compilation"] < printed["seconds"]
    assert printed["command"] == "dendrite generate"
    given = {"model": checkpoint, "prompt": "The tree", "num_branches": 2, "temperature": 0.0}
    asked = {"max_new_tokens": NEW, "max_context": 64, "seed": 0, "top_k": None}
    assert {**printed["options"], **given, **asked} == printed["options"]
    assert printed["environment"]["packages"]["jax"] == jax.__version__

    shown = dendrite("generate", "--model", checkpoint, *arguments)
    assert (shown.code, shown.err) == (0, COMPILES)
    assert shown.out == "\n\n".join(2 * [f"The tree{first['text']}"]) + "\n"


@pytest.mark.slow
def test_a_prompt_is_printed_as_it_is(dendrite: Dendrite, checkpoint: str) -> None:
    prompt = "[/x] [bold] :smile: " + 30 * "long "
    ran = dendrite(
        "generate", "--model", checkpoint, "--prompt", prompt, *SIZES, "--max-context", "256"
    )
    assert ran.code == 0
    assert ran.out.startswith(prompt)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prompt", ""], "prompt is empty; it must have at least one token"),
        (["--prompt", "a\udcff"], "prompt has '\\udcff' at place 1"),
        (["--prompt", 99 * "?!"], "tokens; max_context is 64"),
        (["--prompt", "x", "--temperature", "-1"], "sampling.temperature is -1.0; it must be ≥ 0"),
        (["--prompt", "x", "--top-k", "0"], "sampling.top_k is 0; it must be ≥ 1"),
        (["--prompt", "x", "--top-p", "0"], "sampling.top_p is 0.0; it must be in (0, 1]"),
        (["--prompt", "x", "--max-new-tokens", "0"], "max_new_tokens is 0; it must be at least 1"),
        (["--prompt", "x", "--max-context", "0"], "max_context is 0; it must be at least 1"),
    ],
    ids=lambda value: (
        " ".join(value[-2:])[:20].encode(errors="replace").decode()
        if isinstance(value, list)
        else ""
    ),
)
def test_bad_input_is_one_line_and_exit_code_2(
    dendrite: Dendrite, checkpoint: str, arguments: list[str], message: str
) -> None:
    ran = dendrite("generate", "--model", checkpoint, *SIZES, *arguments)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("dendrite: ")
    assert message in line


@pytest.mark.slow
def test_compiled_programs_are_kept_unless_asked_not_to(checkpoint: str, tmp_path: Path) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("JAX_")
    } | {"DENDRITE_COMPILATION_CACHE": str(tmp_path), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-c", "from dendrite_jax.cli.main import main; main()", "generate"]
    arguments = ["--model", checkpoint, "--prompt", "x", "--max-new-tokens", "1", "--json"]

    def run(*more: str) -> list[Path]:
        ran = subprocess.run(
            [*command, *arguments, *more], env=environment, capture_output=True, text=True
        )
        assert ran.returncode == 0, ran.stderr
        return list(tmp_path.iterdir())

    assert run("--no-compile-cache") == []
    assert any("open_prompts" in file.name for file in run())
