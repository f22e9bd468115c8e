"""The Game-of-24 table: how it is put together, its intervals, its control and its plot."""

from __future__ import annotations

import json
import math
import random
import xml.etree.ElementTree as ET
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from dendrite_jax.benchmarks.game24 import table as game24
from dendrite_jax.benchmarks.game24.plot import success_plot
from dendrite_jax.benchmarks.game24.table import Row
from dendrite_jax.benchmarks.game24.uniform_play import success_of_one_play, success_of_plays
from dendrite_jax.benchmarks.harness.intervals import interval
from dendrite_jax.search import registry
from dendrite_jax.tasks.game24.game.graph import load_test_puzzles
from dendrite_jax.tasks.game24.game.rules import as_state, legal_moves
from dendrite_jax.tasks.game24.solutions import Answer, Results, Solution

SOLVABLE, UNSOLVABLE = (4, 5, 6, 10), (1, 1, 1, 1)


class FakeSearch:
    """Solves what its name says: "all" puzzles, or one of two by "turns" of the seed."""

    def __init__(self, *_pretrained: Any, method: str, sizes: Any, score: Any = None) -> None:
        self.method, self.random = method, score is not None

    def solve_batch(self, puzzles: list[tuple[int, ...]], target: int, seed: int) -> Results:
        def solution(index: int, puzzle: tuple[int, ...]) -> Solution:
            right = self.method == "all" or (index + seed) % 2 == 0
            right &= not self.random
            wrong = Answer(1, ("x",), 0.0, None, False)
            true = Answer(2, ("y",), -1.0, "1", True)
            answers = (wrong, true) if right else (wrong,)
            if self.method == "all":
                answers = answers[::-1]
            # What the checker finds in a tree beside the search's answers counts for nothing.
            return Solution(puzzle, target, answers, (true,), "", nodes=10, legal_nodes=9)

        solutions = tuple(solution(index, puzzle) for index, puzzle in enumerate(puzzles))
        count = len(puzzles)
        return Results(solutions, {"generated": 56 * count, "reused": 7 * count, "forks": count})


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(game24, "Game24Search", FakeSearch)
    monkeypatch.setattr(game24, "load_solver", lambda: ("model", "tokenizer"))
    monkeypatch.setattr(game24, "BATCH", 2)
    rows = (Row("certain", "all"), Row("in turns", "turns", {"proposals": 3}, seeds=4))
    saved: list[str] = []
    result = game24.run(
        37, puzzles=[SOLVABLE] * 4, rows=rows, each=lambda r: saved.append(json.dumps(r))
    )
    assert [len(json.loads(text)["rows"]) for text in saved] == [1, 2]
    return result


def test_rates_are_means_over_puzzles_and_seeds(table: dict[str, Any]) -> None:
    certain, turns = table["rows"]
    assert (certain["best_answer_right"], certain["any_kept_right"]) == (1.0, 1.0)
    assert (turns["best_answer_right"], turns["any_kept_right"]) == (0.0, 0.5)
    assert turns["best_answer_right_by_seed"] == [0.0] * 4
    assert (turns["seeds"], turns["sizes"]) == (4, {"proposals": 3})
    for row in table["rows"]:
        assert row["tokens_per_puzzle"] == 56
        assert row["reused_per_puzzle"] == 7
        assert row["forks_per_puzzle"] == 1
        assert row["step_legality"] == 0.9
        assert row["random_values_best_right"] == row["random_values_any_right"] == 0.0
        assert row["uniform_play_any_right"] == success_of_plays([SOLVABLE], 37, 2.0)
    assert table["target"] == 37


def test_people_see_rates_with_their_intervals(
    table: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    game24.show(table)
    out = capsys.readouterr().out
    assert "Game of 24, 4 held-out puzzles, target 37" in out
    assert "100% (51%–100%)" in out  # Wilson's for 4 of 4


def test_every_row_is_a_search_that_can_be_built() -> None:
    for row in (*game24.ROWS, *game24.DEEP_ROWS):
        assert set(row.sizes) <= set(registry.sizes_of(row.method))
    assert {row.method for row in game24.ROWS} == {"greedy", "sample", "mcts", *registry.ALIASES}


@pytest.mark.parametrize(
    ("right", "trials", "expected"),
    # From Wilson's formula by hand: 0 of 10, 5 of 10, 100 of 100.
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (100, 100, (0.9630, 1.0))],
)
def test_one_seed_has_wilsons_interval(
    right: int, trials: int, expected: tuple[float, float]
) -> None:
    solved = np.arange(trials)[None] < right
    assert interval(solved) == pytest.approx(expected, abs=1e-4)


def test_seeds_that_agree_tell_nothing_new_and_seeds_that_do_not_do() -> None:
    one = np.arange(100)[None] < 40
    assert interval(np.repeat(one, 3, axis=0)) == pytest.approx(interval(one), abs=2e-3)
    chance = np.random.default_rng(0).random((3, 100)) < 0.4
    low, high = interval(chance)
    pooled = interval(chance.reshape(1, -1))
    assert high - low == pytest.approx(pooled[1] - pooled[0], rel=0.1)


def test_uniform_play_is_what_playing_comes_to() -> None:
    chance = random.Random(0)
    state = as_state(SOLVABLE)

    def play() -> bool:
        left = state
        while len(left) > 1:
            left = chance.choice(legal_moves(left)).state
        return left == (24,)

    tries = 4000
    rate = sum(play() for _ in range(tries)) / tries
    exact = success_of_one_play(state, 24)
    assert rate == pytest.approx(exact, abs=4 * math.sqrt(exact / tries))
    assert success_of_one_play(as_state(UNSOLVABLE), 24) == 0
    assert success_of_one_play((Fraction(24),), 24) == 1


def test_plays_add_up() -> None:
    exact = success_of_one_play(as_state(SOLVABLE), 24)
    both = [SOLVABLE, UNSOLVABLE]
    assert success_of_plays(both, 24, 1) == pytest.approx(exact / 2)
    # Of three plays one is right at least, summed over the eight outcomes.
    outcomes = product([exact, 1 - exact], repeat=3)
    none = (1 - exact) ** 3
    expected = sum(math.prod(outcome) for outcome in outcomes) - none
    assert success_of_plays([SOLVABLE], 24, 3) == pytest.approx(expected)


@pytest.mark.slow
def test_uniform_play_solves_six_test_puzzles_in_a_thousand() -> None:
    puzzles = [tuple(map(int, puzzle)) for puzzle in load_test_puzzles()]
    assert success_of_plays(puzzles, 24, 1) == pytest.approx(0.0063, abs=5e-4)


def plotted(rows: list[dict[str, Any]]) -> list[tuple[str, float, float]]:
    """The method, x and y of each point, in the order drawn."""
    root = ET.fromstring(success_plot(rows))
    space = "{http://www.w3.org/2000/svg}"
    return [
        (
            circle.findtext(f"{space}title", ""),
            float(circle.attrib["cx"]),
            float(circle.attrib["cy"]),
        )
        for circle in root.iter(f"{space}circle")
        if len(circle)  # those of the legend have no title
    ]


def test_the_plot_has_a_point_for_each_row_by_tokens_and_success() -> None:
    def row(method: str, tokens: float, rate: float) -> dict[str, Any]:
        return {
            "method": f"<{method}>",
            "search": method,
            "tokens_per_puzzle": tokens,
            "best_answer_right": rate,
            "best_answer_interval": (max(rate - 0.1, 0), min(rate + 0.1, 1)),
            "uniform_play_any_right": rate / 10,
        }

    points = plotted([row("mcts", 1000, 0.5), row("greedy", 10, 0.0), row("tot-bfs", 100, 1.0)])
    by_name = {title.split(">")[0][1:]: (x, y) for title, x, y in points}
    greedy, bfs, mcts = (by_name[name] for name in ("greedy", "tot-bfs", "mcts"))
    # Decades are equally far apart, and so are success 0, 1/2 and 1.
    assert bfs[0] - greedy[0] == pytest.approx(mcts[0] - bfs[0], abs=0.2)
    assert greedy[1] - mcts[1] == pytest.approx(mcts[1] - bfs[1], abs=0.2)
    assert greedy[0] < bfs[0] < mcts[0]
    assert bfs[1] < mcts[1] < greedy[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "0", "--out", "x"], "0 is not in the range 1<=x<=100"),
        (["--out", "."], "File '.' is a directory"),
        (["--out", "x", "--plot", "."], "File '.' is a directory"),
    ],
)
def test_bad_options_are_refused_before_the_first_search(
    arguments: list[str], message: str
) -> None:
    ran = CliRunner().invoke(game24.main, arguments)
    assert ran.exit_code == 2
    assert message in ran.output
