"""The bookkeeping benchmark at its smallest: what it compares, never how long it took."""

from __future__ import annotations

import json

import pytest

from dendrite_jax.benchmarks.mcts import table as mcts
from dendrite_jax.search.monte_carlo import Uct


def test_a_rule_is_timed_beside_mctx(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mcts, "REPEATS", 2)
    monkeypatch.setattr(mcts, "RULES", {"uct": Uct()})
    result = mcts.run(sizes=((2, 3, 5),))
    (row,) = result["rows"]
    assert (row["rule"], row["problems"], row["children"], row["simulations"]) == ("uct", 2, 3, 5)
    assert row["ratio"] == pytest.approx(row["ours_us"] / row["mctx_us"])
    assert result["summary"] == {"worst_ratio": row["ratio"], "median_ratio": row["ratio"]}
    assert json.loads(json.dumps(result)) == result
    mcts.show(result)
    assert "simulation" in capsys.readouterr().out
