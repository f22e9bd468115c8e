"""Properties of the plan of tree attention on random trees, entry by entry in plain Python."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache, partial
from itertools import pairwise, product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dendrite_jax.benchmarks.kernels.trees import Tree, levels_tree, random_tree
from dendrite_jax.kernels.tree_attention.entries import LANE_BITS, MAX_COLUMNS, pack, unpack
from dendrite_jax.kernels.tree_attention.plan import Plan, build_plan, tile_counts
from dendrite_jax.kernels.tree_attention.shapes import TreeTiles, tree_tiles

BLOCK = 16
LANES, MAX_BLOCKS, BLOCKS = 21, 10, 90
"""All trees are padded to these, so that a plan is compiled once a configuration."""
KV_HEADS = 2

SMALL = TreeTiles(
    wide_rows=16,
    wide_keys=32,
    narrow_rows=4,
    narrow_keys=16,
    wide_cost=1,
    narrow_cost=1,
    wide_tile_cost=3,
    narrow_tile_cost=3,
    programs=10,
)
UNEQUAL = TreeTiles(
    wide_rows=8,
    wide_keys=16,
    narrow_rows=4,
    narrow_keys=32,
    wide_cost=3,
    narrow_cost=2,
    wide_tile_cost=2,
    narrow_tile_cost=5,
    programs=32,
)

CONFIGURATIONS = {  # tiles, query heads of a kv head, window
    "tiles of eight and two lanes": (SMALL, 2, None),
    "a window": (SMALL, 2, 20),
    "a window of one token": (SMALL, 4, 1),
    "unequal costs": (UNEQUAL, 1, None),
    "all lanes in one wide tile": (tree_tiles(LANES, 2 * KV_HEADS, KV_HEADS, 128, 2), 2, None),
    "all lanes in one narrow tile": (TreeTiles(narrow_rows=64, programs=8), 1, None),
}


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """A random tree, some of its lanes idle."""
    seed = draw(st.integers(0, 2**32 - 1))
    tokens, idle = draw(st.integers(1, 40)), draw(st.sampled_from([0.0, 0.3]))
    tree = random_tree(np.random.default_rng(seed), LANES, tokens, idle)
    assume(tree.num_blocks <= BLOCKS and tree.table.shape[1] <= MAX_BLOCKS)
    return tree.padded(MAX_BLOCKS, BLOCKS)


class Entry(NamedTuple):
    """One entry of a plan's list."""

    tile: int
    block: int
    column: int
    lanes: list[int]


@lru_cache
def _planner(name: str) -> jax.stages.Wrapped:
    tiles, group, window = CONFIGURATIONS[name]
    return jax.jit(
        partial(
            build_plan,
            num_blocks=BLOCKS,
            num_kv_heads=KV_HEADS,
            group=group,
            window=window,
            tiles=tiles,
        )
    )


def planned(name: str, tree: Tree) -> Plan:
    """The plan of a configuration, its arrays on the host."""
    return jax.device_get(_planner(name)(tree.table, tree.length))


def tile_bounds(plan: Plan) -> list[tuple[int, int]]:
    """First and end place of each tile, wide ones first."""
    wide, narrow = plan.tiles.lanes(plan.group)
    wide_tiles, narrow_tiles = tile_counts(LANES, plan.group, plan.tiles)
    sizes = [(tile * wide, wide) for tile in range(wide_tiles)]
    sizes += [(tile * narrow, narrow) for tile in range(narrow_tiles)]
    return [(first, min(first + size, LANES)) for first, size in sizes]


def entries(plan: Plan) -> list[Entry]:
    """All entries in order, with the lanes that read them."""
    found = []
    for tile, (first, end) in enumerate(tile_bounds(plan)):
        for entry in range(plan.tile_start[tile], plan.tile_start[tile + 1]):
            info = int(plan.entry_info[entry])
            begin, stop = first + (info >> 8 & 0xFF), first + (info & 0xFF)
            assert first <= begin < stop <= end
            lanes = [int(lane) for lane in plan.order[begin:stop]]
            found.append(Entry(tile, int(plan.entry_block[entry]), info >> 16, lanes))
    return found


def reads(tree: Tree, window: int | None) -> dict[tuple[int, int], int]:
    """The block of every (lane, column) that must be read."""
    needed = {}
    for lane, length in enumerate(tree.length.tolist()):
        first = 0 if window is None else max(length - window, 0) // BLOCK
        for column in range(first, -(-length // BLOCK)):
            needed[lane, column] = int(tree.table[lane, column])
    return needed


@pytest.mark.parametrize("name", CONFIGURATIONS)
@given(tree=trees())
def test_every_lane_and_block_is_covered_once(name: str, tree: Tree) -> None:
    plan = planned(name, tree)
    assert sorted(plan.order.tolist()) == list(range(LANES))
    needed = reads(tree, plan.window)
    covered: Counter[tuple[int, int]] = Counter()
    for entry in entries(plan):
        for lane in entry.lanes:
            if entry.column * BLOCK < tree.length[lane]:  # the kernel masks what lies beyond
                assert tree.table[lane, entry.column] == entry.block
                covered[lane, entry.column] += 1
    assert needed.keys() <= covered.keys()
    assert not covered or max(covered.values()) == 1
    if plan.window is None:
        assert covered.keys() == needed.keys()


@pytest.mark.parametrize("name", CONFIGURATIONS)
@given(tree=trees())
def test_a_block_is_an_entry_of_each_wide_tile_that_reads_it(name: str, tree: Tree) -> None:
    """So it is read once, and by one worker, where all its readers are in one wide tile."""
    plan = planned(name, tree)
    wide, _ = plan.tiles.lanes(plan.group)
    place = np.argsort(plan.order)
    readers: dict[int, set[int]] = {}
    for (lane, _), block in reads(tree, None).items():
        readers.setdefault(block, set()).add(int(place[lane]) // wide)
    listed = Counter(entry.block for entry in entries(plan))
    for block, count in listed.items():
        assert count <= len(readers[block])
    if plan.window is None:
        assert listed == {block: len(tiles) for block, tiles in readers.items()}


class Part(NamedTuple):
    """What a worker would do of a tile: iterations, and the costs of starting and of each."""

    iterations: int
    start: int
    iteration: int

    @property
    def cost(self) -> int:
        return self.start + self.iterations * self.iteration


def parts(plan: Plan, first: int, end: int) -> list[Part]:
    """The parts of tiles that the entries [first, end) are."""
    tiles = plan.tiles
    wide_tiles, _ = tile_counts(LANES, plan.group, tiles)
    found = []
    for tile, (tile_first, tile_end) in enumerate(pairwise(plan.tile_start.tolist())):
        held = min(end, tile_end) - max(first, tile_first)
        if tile < wide_tiles:
            keys, unit, start = tiles.wide_keys, tiles.wide_cost, tiles.wide_tile_cost
        else:
            keys, unit, start = tiles.narrow_keys, tiles.narrow_cost, tiles.narrow_tile_cost
        step = keys // BLOCK
        if held > 0:
            found.append(Part(-(-held // step), start, unit * step))
    return found


def workers_needed(tiles: list[Part], limit: int) -> int:
    """Workers that it takes if each takes all that the limit allows, an iteration at a time."""
    workers, left = 1, limit
    for tile in tiles:
        started = False
        for _ in range(tile.iterations):
            cost = tile.iteration + (0 if started else tile.start)
            if cost > left:
                workers, left, cost = workers + 1, limit, tile.start + tile.iteration
                if cost > limit:
                    return 10**9
            left -= cost
            started = True
    return workers


@pytest.mark.parametrize("name", CONFIGURATIONS)
@given(tree=trees())
def test_the_highest_share_is_as_low_as_it_can_be(name: str, tree: Tree) -> None:
    """Each entry has one worker, and with a lower limit there would not be enough of them."""
    plan = planned(name, tree)
    workers, total = plan.tiles.programs // KV_HEADS, int(plan.tile_start[-1])
    start = plan.work_start.tolist()
    assert len(start) == workers + 1
    assert start == sorted(start)
    assert (start[0], start[-1]) == (0, total)
    highest = max(sum(part.cost for part in parts(plan, *share)) for share in pairwise(start))
    assert total == 0 or workers_needed(parts(plan, 0, total), highest - 1) > workers


@pytest.mark.parametrize("name", CONFIGURATIONS)
@given(tree=trees())
def test_tiles_are_cut_between_iterations(name: str, tree: Tree) -> None:
    plan, tiles = planned(name, tree), CONFIGURATIONS[name][0]
    wide_tiles, _ = tile_counts(LANES, plan.group, plan.tiles)
    for first in plan.work_start[:-1].tolist():
        tile = int(np.searchsorted(plan.tile_start, first, side="right")) - 1
        keys = tiles.wide_keys if tile < wide_tiles else tiles.narrow_keys
        assert (
            first == plan.tile_start[-1] or (first - plan.tile_start[tile]) % (keys // BLOCK) == 0
        )


@pytest.mark.parametrize("name", CONFIGURATIONS)
@given(tree=trees())
def test_the_merge_finds_every_partial(name: str, tree: Tree) -> None:
    plan = planned(name, tree)
    touched: dict[int, list[int]] = {tile: [] for tile in range(len(plan.tile_start) - 1)}
    spans = list(pairwise(plan.tile_start.tolist()))
    for worker, (first, end) in enumerate(pairwise(plan.work_start.tolist())):
        for tile, (tile_first, tile_end) in enumerate(spans):
            if max(first, tile_first) < min(end, tile_end):
                touched[tile].append(worker)
        if first < end:
            tile = int(plan.work_tile[worker])
            assert spans[tile][0] <= first < spans[tile][1]
            assert plan.work_stop[worker] == min(spans[tile][1], end)
    slots = []
    for tile, by in touched.items():
        assert plan.tile_pieces[tile] == len(by)
        assert by == [plan.tile_worker[tile] + piece for piece in range(len(by))]
        slots += [worker + tile for worker in by]
    assert len(set(slots)) == len(slots)


@pytest.mark.parametrize("name", CONFIGURATIONS)
@given(tree=trees())
def test_every_lane_reads_the_leading_entries_of_a_tile_whole(name: str, tree: Tree) -> None:
    plan = planned(name, tree)
    listed, bounds = entries(plan), tile_bounds(plan)
    for tile, end in enumerate(plan.tile_full.tolist()):
        first = int(plan.tile_start[tile])
        assert end >= first
        for entry in listed[first:end]:
            assert len(entry.lanes) == bounds[tile][1] - bounds[tile][0]
            assert all((entry.column + 1) * BLOCK <= tree.length[lane] for lane in entry.lanes)


def test_a_shared_prefix_is_read_whole_by_the_wide_tile() -> None:
    tree = levels_tree((1, LANES), (40, 9)).padded(MAX_BLOCKS, BLOCKS)
    plan = planned("all lanes in one wide tile", tree)
    assert plan.tile_full.tolist() == [2]  # 40 tokens fill two blocks, the third was copied
    assert int(plan.tile_start[-1]) == len(tree.unique_blocks())


def test_lanes_that_are_all_idle_are_no_work() -> None:
    table = np.full((LANES, MAX_BLOCKS), -1, np.int32)
    plan = planned("a window", Tree(table, np.zeros(LANES, np.int32), BLOCKS))
    assert int(plan.tile_start[-1]) == 0
    assert not plan.tile_pieces.any()


def test_64_bit_types_change_no_plan() -> None:
    """What jax makes of sums and ranges then must not reach the kernels."""
    tree = levels_tree((1, LANES), (40, 9)).padded(MAX_BLOCKS, BLOCKS)
    want = planned("a window", tree)
    with jax.enable_x64(True):
        got = planned("a window", tree)
    for ours, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert ours.dtype == np.int32
        np.testing.assert_array_equal(ours, theirs)


def test_words_of_entries_hold_their_largest_numbers() -> None:
    lanes = 1 << LANE_BITS
    numbers = [[0, MAX_COLUMNS - 1], [0, 1, lanes - 1], [0, 1, lanes - 1]]
    fields = [jnp.asarray(part, jnp.int32) for part in zip(*product(*numbers), strict=True)]
    words = pack(*fields)
    assert words.dtype == jnp.int32
    assert (words >= 0).all()
    for got, want in zip(unpack(words), fields, strict=True):
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("group", range(1, 65))
def test_lanes_of_a_tile_fit_an_entry(group: int) -> None:
    wide, narrow = tree_tiles(1024, group, 1, 64, 2).lanes(group)
    assert 0 < narrow <= wide < 1 << LANE_BITS
