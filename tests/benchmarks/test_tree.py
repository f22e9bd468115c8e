"""The tree benchmark at its smallest: what it grows and counts, never how long it took."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.tiny import TINY
from dendrite_jax import engine
from dendrite_jax.benchmarks.harness.shapes import SHAPES
from dendrite_jax.benchmarks.tree import peer as tree_peer
from dendrite_jax.benchmarks.tree import table as tree
from dendrite_jax.benchmarks.tree.bookkeeping import HollowDecoder
from dendrite_jax.benchmarks.tree.programs import TreePrograms, random_prompt
from dendrite_jax.benchmarks.tree.reprefill import LevelCost, Reprefill
from dendrite_jax.benchmarks.tree.sizes import (
    CPU,
    H100,
    BatchCost,
    TreeSizes,
    round_seconds,
    tree_seconds,
)
from dendrite_jax.benchmarks.tree.workloads import measure_tree
from dendrite_jax.engine import State
from dendrite_jax.models import Decoder
from dendrite_jax.testing import BigramModel

pytestmark = pytest.mark.slow

SIZES = TreeSizes(
    prompt=32,
    prefixes=(16, 32),
    thought=4,
    rounds=((2, 3),),
    num_rounds=3,
    depth=2,
    branching=3,
    batch_tokens=128,
)


@pytest.fixture(scope="module")
def programs() -> TreePrograms:
    model = BigramModel(jax.random.normal(jax.random.key(0), (16, 16)))
    return TreePrograms.compile(model, SIZES, SIZES.program_lanes)


def held_texts(state: State) -> dict[int, list[int]]:
    """The tokens of every branch that a state holds, by its id."""
    ids = jnp.flatnonzero(state.cache.alive)
    tokens, length = jax.device_get(engine.branch_tokens(state, ids))
    return {
        int(branch): row[:count].tolist()
        for branch, row, count in zip(ids, tokens, length, strict=True)
    }


def test_a_round_grows_each_branch_in_its_ways_and_keeps_some(programs: TreePrograms) -> None:
    prompt = random_prompt(programs.model, SIZES.prompt)
    state, root = programs.prompt(programs.empty(), prompt)
    assert list(held_texts(state).values()) == [prompt.tolist()]

    parents = [prompt.tolist()]
    frontier, width = root, 6
    choices = set()
    for seed in range(3):
        state, grown = programs.grow(state, frontier, 6, width, 2, seed)
        texts = held_texts(state)
        tokens = grown.tokens.tolist()
        children = [parents[lane // width] + tokens[lane] for lane in range(width * len(parents))]
        kept = [branch for branch in grown.kept.tolist() if branch >= 0]
        assert grown.kept.tolist() == kept + [-1] * (len(grown.kept) - 2)
        assert sorted(kept) == sorted(texts)
        lanes = [children.index(texts[branch]) for branch in kept]
        assert lanes == sorted(lanes)
        choices.add(tuple(lanes))
        parents = [texts[branch] for branch in kept]
        frontier, width = grown.kept, 3
    assert len(choices) > 1


def test_a_complete_tree_prefills_its_prefix_once_and_grows_every_node(
    programs: TreePrograms,
) -> None:
    grown = measure_tree(programs, 32)
    thoughts = 3 + 9
    assert len(grown.levels) == 2
    assert grown.ledger["prefilled"] == 32
    assert grown.ledger["forks"] == thoughts
    assert grown.ledger["generated"] == thoughts * SIZES.thought
    # Two blocks of the prefix, one for each child; a grandchild copies that, the last one keeps it.
    assert grown.peak_blocks == 2 + 9
    assert grown.total == grown.prefill + sum(grown.levels)


def test_reprefill_times_each_level_at_its_length(monkeypatch: pytest.MonkeyPatch) -> None:
    model = BigramModel(jax.random.normal(jax.random.key(0), (16, 16)))
    peer = Reprefill.compile(model, SIZES, 16)
    prefilled, decoded = [], []
    prefill, decode = Reprefill._prefill, Reprefill._decode

    def spy_prefill(self: Reprefill, state: State, ids: jax.Array, length: int) -> tuple:
        prefilled.append(length)
        return prefill(self, state, ids, length)

    def spy_decode(self: Reprefill, state: State, ids: jax.Array) -> tuple:
        busy = ids[ids >= 0]
        decoded.append((len(busy), set(state.cache.length[busy].tolist())))
        return decode(self, state, ids)

    monkeypatch.setattr(Reprefill, "_prefill", spy_prefill)
    monkeypatch.setattr(Reprefill, "_decode", spy_decode)
    costs = peer.measure()
    assert [cost.lanes for cost in costs] == [3, 8]
    assert prefilled == [16, 16, 20, 16, 16]  # a warm-up, the levels, a batch of 8
    assert decoded == [(0, set()), (3, {16}), (5, {16}), (8, {20}), (0, set())]


def test_level_costs_add_up() -> None:
    cost = LevelCost(lanes=16, prefill=2.0, decode=1.0)
    assert cost.of_branches() == BatchCost(16, 4 * 2.0 + 1.0)
    assert cost.of_parents(branching=4) == BatchCost(16, 1 * 2.0 + 1.0)
    costs = [BatchCost(3, 1.0), BatchCost(8, 10.0)]
    assert tree_seconds(SIZES, costs) == 1.0 + 2 * 10.0
    assert round_seconds(6, costs) == 2 * 1.0
    assert round_seconds(24, costs) == 3 * 10.0


@pytest.mark.parametrize("sizes", [H100, CPU, SIZES])
def test_the_cache_holds_both_workloads(sizes: TreeSizes) -> None:
    config = sizes.cache_config
    thoughts = sum(sizes.branching**level for level in range(1, sizes.depth + 1))
    blocks = -(-max(sizes.prefixes) // 16) + thoughts * -(-sizes.thought // 16)
    assert config.num_blocks >= blocks
    assert config.num_slots >= sizes.level_thoughts[-1] + sizes.level_thoughts[-2]
    assert config.max_context >= sizes.prompt + sizes.num_rounds * sizes.thought
    assert all(prefix % sizes.piece == 0 for prefix in sizes.prefixes)
    assert all(keep * width in sizes.program_lanes for keep, width in sizes.rounds)
    assert max(sizes.level_thoughts) <= max(sizes.program_lanes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"thought": 0}, "thought is 0; it must be at least 1"),
        ({"depth": 0}, "depth is 0"),
        ({"prompt": 48}, r"prompt is 48; it must be one of \(16, 32\)"),
        ({"batch_tokens": 100}, "batch_tokens is 100; it must be at least 128"),
    ],
)
def test_sizes_that_cannot_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SIZES, **change)


def test_a_hollow_decoder_has_the_books_of_a_whole_one() -> None:
    hollow = HollowDecoder(jnp.arange(64.0), TINY, jnp.dtype("float32"))
    config = SIZES.cache_config
    state = jax.eval_shape(partial(engine.init, config=config), hollow)
    whole = Decoder({"embed": jax.ShapeDtypeStruct((64, 32), jnp.float32)}, TINY)
    expected = jax.eval_shape(partial(engine.init, config=config), whole)
    assert state.cache.table == expected.cache.table
    assert state.hidden == expected.hidden
    (found,), (wanted,) = state.cache.pool.groups, expected.cache.pool.groups
    assert found.arrays["k"].shape[1:] == wanted.arrays["k"].shape[1:]
    logits = hollow.unembed(jnp.full((3, 32), 2.0))
    np.testing.assert_array_equal(logits, np.tile(np.arange(64.0) + 2, (3, 1)))


def test_one_run_reports_both_workloads_and_their_peers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    measured = {"environment": {}, "trees": {"32": {"prefill": 0.5, "levels": [[3, 2.0]]}}}
    monkeypatch.setattr(tree_peer, "run_peer", lambda *_: measured)
    monkeypatch.setattr(tree.harness, "read_bandwidth", lambda *_: 1e9)
    sizes = replace(SIZES, prefixes=(32,), depth=1)
    result = tree.run("tiny", sizes)
    assert json.loads(json.dumps(result))["rounds"] == result["rounds"]
    (rounds,) = result["rounds"]
    (grown,) = result["trees"]
    (books,) = result["bookkeeping"]
    (level,) = result["levels"]
    assert (rounds["keep"], rounds["width"]) == (2, 3) == (books["keep"], books["width"])
    assert rounds["transformers_ms"] == 1e3 * 2 * 2.0  # six branches, three at a time
    assert grown["transformers_seconds"] == 0.5 + 2.0 == grown["transformers_one_node_seconds"]
    assert books["planning_us"] is None
    weights = 4 * (64 * 32 + 64 * 32 + 32 * 32 + 2 * 32 * 32 + 32 * 32 + 3 * 32)
    tokens = 32 + 6 * 4 / 2  # the prompt, and six branches that have half their tokens
    floor = 4 * (weights + tokens * 2 * 16 * 4) / 1e9
    assert rounds["floor_ms"] == pytest.approx(1e3 * floor)
    assert grown["tokens_prefilled"] == 32
    assert grown["tokens_generated"] == 3 * 4
    assert level["reprefill_batch"] == 3
    seconds = (level["reprefill_prefill_ms"] + level["reprefill_decode_ms"]) / 1e3
    assert grown["reprefill_seconds"] == pytest.approx(seconds)
    tree.show(result)
    assert "complete trees, depth 1, branching 3, tiny" in capsys.readouterr().out


def test_no_peer_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    assert tree_peer.measure("small", SIZES) is None
