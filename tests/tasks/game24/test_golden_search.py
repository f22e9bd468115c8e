"""One search by the embedded model, the same on every supported version of jax."""

from __future__ import annotations

import pytest

from dendrite_jax.tasks.game24.solve import Game24Search, load_solver

PUZZLE, SEED = (4, 5, 6, 10), 0
LINES = (
    (" 5 * 4 = 20 (left: 6 10 20)", " 20 - 6 = 14 (left: 10 14)", " 14 + 10 = 24 (left: 24)"),
    (" 5 / 10 = 1/2 (left: 1/2 4 6)", " 6 * 4 = 24 (left: 1/2 24)", " 24 * 1/2 = 12 (left: 12)"),
    (" 5 / 10 = 1/2 (left: 1/2 4 6)", " 6 * 4 = 24 (left: 1/2 24)", " 24 / 1/2 = 48 (left: 48)"),
)
VALUES = (0.0, -16.874, -23.897)
GENERATED = 344


@pytest.mark.slow
def test_a_seed_gives_the_same_search_everywhere() -> None:
    search = Game24Search(*load_solver(), sizes={"breadth": 3, "proposals": 12})
    results = search.solve([PUZZLE], seed=SEED)
    answers = results.solutions[0].answers
    assert tuple(answer.lines for answer in answers) == LINES
    # Sums of 256 float32 products in another order move a log-probability by less than this.
    assert [answer.value for answer in answers] == pytest.approx(VALUES, abs=1e-2)
    assert results.ledger["generated"] == GENERATED
