"""What the kernel benchmarks do on the host, and the branch benchmark at its smallest."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks.tiny import TINY
from dendrite_jax.benchmarks import kernel_checks
from dendrite_jax.benchmarks.decode import shared as branches
from dendrite_jax.benchmarks.harness.shapes import SHAPES
from dendrite_jax.benchmarks.kernels import attention as kernels
from dendrite_jax.benchmarks.kernels import peer as kernels_peer
from dendrite_jax.benchmarks.kernels.trees import TREES, Tree, random_tree
from dendrite_jax.kernels.blocks import BLOCK_SIZE


def test_every_benchmark_of_a_kernel_asks_for_a_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(kernels.NoGpuError, match="the kernels run on a GPU; this is cpu"):
        kernels.run()
    assert kernel_checks.main([]) == 2
    assert "the kernels run on a GPU; this is cpu" in capsys.readouterr().err


@pytest.mark.parametrize("name", TREES)
def test_a_tree_shares_and_covers(name: str) -> None:
    tree = TREES[name]()
    held = -(-tree.length // BLOCK_SIZE)
    for row, count in zip(tree.table, held, strict=True):
        assert (row[:count] >= 0).all()
        assert (row[:count] < tree.num_blocks).all()
        assert (row[count:] == -1).all()
        assert len(set(row[:count].tolist())) == count
    shares = len(tree.unique_blocks()) < held.sum()
    assert shares == (name not in ("64 unshared x 1024", "1 x 4096"))


def _sorted(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort(tree.table.T[::-1])
    order = order[tree.length[order] > 0]
    return tree.table[order], -(-tree.length[order] // BLOCK_SIZE)


@pytest.mark.parametrize("seed", range(20))
def test_levels_of_a_cascade_hold_each_lanes_pages_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tree = random_tree(rng, int(rng.integers(1, 12)), 80, idle=0.0)
    table, held = _sorted(tree)
    if len(table) == 0:
        return
    levels = kernels_peer.cascade_levels(table, held)
    for lane in range(len(table)):
        pages: list[int] = []
        for level in levels:
            group = int(np.searchsorted(level.lanes, lane, side="right")) - 1
            pages += level.pages[group]
        assert pages == table[lane, : held[lane]].tolist()


def test_levels_of_a_cascade_are_the_levels_of_the_tree() -> None:
    levels = kernels_peer.cascade_levels(*_sorted(TREES["1,4,16,64/1024,256,128,64"]()))
    assert [len(level.pages) for level in levels] == [1, 4, 16, 64]
    assert len(kernels_peer.cascade_levels(*_sorted(TREES["64 unshared x 1024"]()))) == 1


def test_an_error_of_the_peer_names_no_folders() -> None:
    error = RuntimeError("no '/a b' at /opt/some-where/else/batch_decode.cu, 1/2 of it")
    assert kernels_peer._brief(error) == "no '/a b' at batch_decode.cu, 1/2 of it"


def test_the_fastest_mode_of_the_peer_is_taken() -> None:
    row: dict[str, Any] = {
        "tree": "a",
        "decode": {"microseconds": 30.0},
        "cascade FA2": {"microseconds": 20.0},
        "tensor-core decode": {"error": "OutOfMemoryError"},
    }
    best = kernels._best(row, 10.0)
    assert (best["flashinfer_mode"], best["flashinfer_us"], best["times"]) == ("cascade FA2", 20, 2)
    assert best["modes"]["tensor-core decode"] == {"error": "OutOfMemoryError"}
    assert kernels._best(None, 10.0)["times"] is None


def test_the_table_shows_what_was_not_measured(capsys: pytest.CaptureFixture[str]) -> None:
    row = {
        "tree": "few",
        "heads": "32/8",
        "us": 9.5,
        "floor_us": 2.0,
        "of_bandwidth": 0.21,
        "jax_us": None,
        "plan_us": 40.0,
        **kernels._best(None, 9.5),
    }
    kernels.show(
        {"environment": {"device": "a GPU"}, "rows": [row], "not_measured": ["FlashInfer"]}
    )
    printed = capsys.readouterr().out
    assert "few" in printed
    assert "not measured: FlashInfer" in printed


@pytest.mark.slow
def test_branches_count_their_tokens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SHAPES, "tiny", TINY)
    monkeypatch.setattr(branches, "REPEATS", 3)
    result = branches.run("tiny", context=32, new_tokens=4, branches=(3,))
    assert [row["branches"] for row in result["rows"]] == [3, 4]
    assert [row["shared"] for row in result["rows"]] == [True, False]
    assert [row["context"] for row in result["rows"]] == [32, 8]
    for row in result["rows"]:
        seconds = row["ms_per_step"] / 1e3
        assert row["tokens_per_second"] * seconds == pytest.approx(row["branches"])
    assert json.loads(json.dumps(result)) == result
    branches.show(result)
    assert "decode of branches, tiny" in capsys.readouterr().out
