"""Every example runs and gives what it says it does."""

from __future__ import annotations

import json
import re
import runpy
from typing import Any

import pytest

from dendrite_jax.tasks.game24.game.rules import apply_step, as_state, parse_step
from dendrite_jax.tasks.game24.solve import PROMPT_TOKENS
from source_tree import ROOT

pytestmark = pytest.mark.slow

EXAMPLES = ROOT / "examples"


def run(name: str) -> Any:
    """What `main()` of an example returns."""
    return runpy.run_path(str(EXAMPLES / name))["main"]()


def number_after(label: str, out: str) -> float:
    found = re.search(rf"^{label}:? (-?[\d.]+)$", out, re.MULTILINE)
    assert found, out
    return float(found[1])


def test_all_examples_are_checked_here() -> None:
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    assert names == {
        "constrained_beam_search",
        "extract_json",
        "fork_by_hand",
        "mcts_in_steps",
        "own_value_function",
        "reward_model",
        "vmapped_beam_search",
    }


def test_fork_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    texts = run("fork_by_hand.py")
    out = capsys.readouterr().out
    assert len(texts) == 3
    for text in texts:
        assert parse_step(text.rstrip("\n")) is not None
        assert text in out
    # The prompt is one block, which three children then write into.
    assert number_after("after the fork, blocks in use", out) == 1
    assert number_after("after the steps, blocks in use", out) > 3
    assert number_after("tokens not recomputed", out) == 3 * PROMPT_TOKENS


def test_own_value_function(capsys: pytest.CaptureFixture[str]) -> None:
    text = run("own_value_function.py")
    out = capsys.readouterr().out
    assert out.startswith(text)
    assert len(text.splitlines()) == 3
    assert number_after("value", out) < 0


def test_reward_model(capsys: pytest.CaptureFixture[str]) -> None:
    text = run("reward_model.py")
    out = capsys.readouterr().out
    assert out.startswith(text)
    assert parse_step(text) is not None or "=" in text
    # Each of twelve steps once, of 5 tokens or more; the policy's own run is not among them.
    assert 12 * 5 < number_after("tokens judged", out) <= 12 * 24


def test_mcts_in_steps(capsys: pytest.CaptureFixture[str]) -> None:
    best = run("mcts_in_steps.py")
    out = capsys.readouterr().out
    assert best == sorted(best)  # what was found is never lost, a saved and restored loop included
    assert len(best) > 2
    assert number_after("visits of the root", out) > len(best)


def test_vmapped_beam_search(capsys: pytest.CaptureFixture[str]) -> None:
    steps = run("vmapped_beam_search.py")
    lines = capsys.readouterr().out.splitlines()
    assert len(steps) == len(lines) == 3
    for step, line in zip(steps, lines, strict=True):
        puzzle, rest = line.split(":", 1)
        assert rest.startswith(step.rstrip())
        # Each state held its own prompt: the step is one of its own puzzle.
        assert apply_step(as_state([int(word) for word in puzzle.split()]), step.rstrip("\n"))


def test_extract_json(capsys: pytest.CaptureFixture[str]) -> None:
    objects = run("extract_json.py")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == objects
    assert len(objects) == 2
    for found in objects:
        assert list(found) == ["a", "op", "b", "result", "left", "value"]
        assert found["op"] in ("+", "-", "*", "/")
        assert all(re.fullmatch("[0-9]{1,3}(/[0-9]{1,2})?", number) for number in found["left"])


def test_constrained_beam_search(capsys: pytest.CaptureFixture[str]) -> None:
    steps = run("constrained_beam_search.py")
    out = capsys.readouterr().out
    assert list(steps) == ["multiply first", "add first", "as it likes"]
    assert re.match(r" \d+ \* \d+ = ", steps["multiply first"])
    assert re.match(r" \d+ \+ \d+ = ", steps["add first"])
    assert parse_step(steps["as it likes"]) is not None
    assert all(step in out for step in steps.values())
