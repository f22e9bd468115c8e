"""Benchmarks at their smallest: what they count, never how long it took."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks.tiny import TINY
from dendrite_jax.benchmarks.decode import max_context
from dendrite_jax.benchmarks.fork import cost as fork
from dendrite_jax.benchmarks.grammar import cases as grammar_cases
from dendrite_jax.benchmarks.grammar import engine as grammar_engine
from dendrite_jax.benchmarks.grammar import peers as grammar_peers
from dendrite_jax.benchmarks.grammar import table as grammar
from dendrite_jax.benchmarks.harness.shapes import SHAPES

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("context", [64, 1040])  # less than one fill, and one that is no multiple
def test_fork_counts_bytes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], context: int
) -> None:
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    monkeypatch.setitem(sys.modules, "torch", None)  # without the comparison
    monkeypatch.setattr(fork, "REPEATS", 2)
    monkeypatch.setattr(fork, "CHILDREN", (1, 3))
    result = fork.run(contexts=(context,), shape="tiny")
    assert [row["children"] for row in result["rows"]] == [1, 3]
    block = 2 * 1 * 1 * 16 * 16 * 4  # k and v, layers, heads, tokens, dim, bytes of a float32
    for row in result["rows"]:
        assert row["context"] == context
        assert row["prefix_bytes"] == context // 16 * block
        assert row["bytes_after_divergence"] - row["bytes_per_child"] == block
        assert row["transformers_copy_per_child_us"] is None
    assert result["summary"]["longest_over_shortest_context"] == 1
    assert json.loads(json.dumps(result)) == result
    fork.show(result)
    assert "fork, tiny" in capsys.readouterr().out


@pytest.mark.parametrize("context", [64, 1040])
def test_a_fork_prefix_has_the_length_that_is_reported(context: int) -> None:
    config = fork.CacheConfig(num_blocks=80, num_slots=2, max_context=context + 32)
    model = fork.Decoder(fork.random_model("small", "float32").params, SHAPES["small"])
    state, root = fork._prefix(model, config, context)
    assert int(state.cache.length[root]) == context


def test_grammar_counts_what_it_compiles(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cases = grammar_cases.benchmark_grammars()
    small = {name: cases[name] for name in ("choice of 8", "10 properties")}
    monkeypatch.setattr(grammar, "benchmark_grammars", lambda: small)
    monkeypatch.setattr(grammar, "COMPILES", 1)
    monkeypatch.setattr(grammar, "FORCED_TEXTS", 1)
    monkeypatch.setattr(grammar_engine, "LENGTHS", {"cpu": (1, 2)})
    monkeypatch.setattr(grammar_engine, "MAX_CONTEXT", 32)
    monkeypatch.setattr(grammar_engine, "REPEATS", 1)
    monkeypatch.setattr(grammar_peers, "STEPS", 3)
    for library in ("outlines_core", "xgrammar"):  # without these comparisons
        monkeypatch.setitem(sys.modules, library, None)
    result = grammar.run(vocab_size=2500, lanes=2)
    assert [row["grammar"] for row in result["rows"]] == list(small)
    assert [row["library"] for row in result["peers"]] == ["llguidance"] * len(small)
    assert all(row["mask_us"] > 0 for row in result["peers"])
    assert result["tokens_per_step_with_fast_forward"]["single bytes"] > 1
    assert "xgrammar: not installed" in result["not_measured"]
    assert json.loads(json.dumps(result)) == result
    grammar.show(result)
    assert "grammar, 2 lanes, 2500 tokens" in capsys.readouterr().out


def test_max_context_measures_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    monkeypatch.setattr(max_context, "TURNS", (1, 2))
    monkeypatch.setattr(max_context, "REPEATS", 1)
    model = fork.random_model("tiny", "float32")
    result = max_context.run(model, lanes=2, max_contexts=(64, 512))
    assert [row["max_context"] for row in result["rows"]] == [64, 512]
    assert json.loads(json.dumps(result)) == result
