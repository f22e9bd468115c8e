"""The work plan of tree attention, in jnp, so that it is made inside jit from the block tables.

Lanes are sorted by their block tables, lexicographically, which is depth-first order: lanes that
share a prefix are neighbours, and the readers of a block are an interval of lanes. All that the
plan needs of the tables is then one number a lane, the blocks it shares with the lane before.

Lanes in that order are cut into wide tiles and, inside those, narrow tiles. A block whose readers
lie inside one narrow tile is an entry of that tile; a block read more widely is an entry of every
wide tile that reads it. Either way a tile lists a block once, however many of its lanes read it.
All entries stand in one list, wide tiles first, and workers take equal shares of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.blocks import BLOCK_SIZE
from dendrite_jax.kernels.describe import describe
from dendrite_jax.kernels.tree_attention.entries import pack
from dendrite_jax.kernels.tree_attention.shapes import TreeTiles

LIMITS = 64
"""Limits of a share's cost that are tried."""
TILES_UNROLLED = 8
"""Tiles that are handed out in one iteration of a loop."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=[
        "table",
        "order",
        "entry_block",
        "entry_info",
        "work_start",
        "work_tile",
        "work_stop",
        "tile_start",
        "tile_full",
        "tile_worker",
        "tile_pieces",
        "period",
    ],
    meta_fields=["group", "window", "tiles"],
)
@dataclass(frozen=True)
class Plan:
    """Which program reads which block for which lanes; one serves all layers of a step."""

    table: Array  # i32[lanes, max_blocks], what it was made for, −1 past a lane's last block
    order: Array  # i32[lanes], the lane at each place of the depth-first order
    entry_block: Array  # i32[entries], physical block
    entry_info: Array  # i32[entries], its column and lanes, see entries.py
    work_start: Array  # i32[workers + 1], first entry of each worker
    work_tile: Array  # i32[workers], tile of that entry
    work_stop: Array  # i32[workers], end of the worker's share of that tile
    tile_start: Array  # i32[tiles + 1], first entry of each tile, wide tiles before narrow ones
    tile_full: Array  # i32[wide tiles], end of the leading entries that every lane reads whole
    tile_worker: Array  # i32[tiles], worker of a tile's first entry
    tile_pieces: Array  # i32[tiles], workers that share the tile
    period: Array  # i32[1], blocks of a wide tile in a full share
    group: int
    window: int | None
    tiles: TreeTiles

    def __repr__(self) -> str:
        return describe(self)


def tile_counts(lanes: int, group: int, tiles: TreeTiles) -> tuple[int, int]:
    """How many wide and narrow tiles cover the lanes; one narrow tile needs no wide one."""
    wide, narrow = tiles.lanes(group)
    if lanes <= narrow:
        return 0, 1
    return -(-lanes // wide), -(-lanes // narrow)


def build_plan(
    table: Array,
    length: Array,
    *,
    num_blocks: int,
    num_kv_heads: int,
    group: int,
    window: int | None,
    tiles: TreeTiles,
) -> Plan:
    """Plans one decode step.

    Args:
      table: i32[lanes, max_blocks], −1 for none.
      length: i32[lanes], cached tokens of each lane, 0 for an idle one.
      num_blocks: blocks of the pool, which bounds the entries.
      num_kv_heads: kv heads; each gets an equal part of the programs.
      group: query heads of a kv head.
      window: sliding window of the layers that the plan is for, or None.
      tiles: tile sizes.
    """
    lanes, max_blocks = table.shape
    held = -(-length // BLOCK_SIZE)
    made_for = held_blocks(table, length)
    order, shared = _depth_first(made_for, held)
    table, held, length = made_for[order], held[order], length[order]
    begin, count = _owned_columns(shared, held, length, group, window, tiles)

    last = jnp.cumsum(count)  # [2 * lanes], wide columns of all lanes before narrow ones
    first = last - count
    wide_tiles, narrow_tiles = tile_counts(lanes, group, tiles)
    wide_lanes, narrow_lanes = tiles.lanes(group)
    # A lane lists a column at most once, and a wide tile or the narrow ones in it a block.
    most = min(lanes * max_blocks, max(wide_tiles, 1) * num_blocks)
    block, info = _list_entries(table, shared, begin, first, last, most, tiles.lanes(group))

    tile_lane = jnp.concatenate(
        [
            jnp.arange(wide_tiles) * wide_lanes,
            lanes + jnp.arange(narrow_tiles) * narrow_lanes,
        ]
    )
    tile_start = jnp.concatenate([first[tile_lane], last[-1:]])
    full = jnp.zeros(wide_tiles, jnp.int32)
    if wide_tiles and window is None:
        full = _full_columns(shared, held, wide_tiles, wide_lanes)
    begins = tile_lane[:wide_tiles]
    return Plan(
        table=made_for,
        order=order,
        entry_block=block,
        entry_info=info,
        **_share_work(tile_start, wide_tiles, num_kv_heads, tiles),
        tile_full=(first[begins] + jnp.minimum(full, count[begins])).astype(jnp.int32),
        group=group,
        window=window,
        tiles=tiles,
    )


def held_blocks(table: Array, length: Array) -> Array:
    """The table [lanes, max_blocks] with −1 past the last block that a lane holds."""
    column = jnp.arange(table.shape[1])
    return jnp.where(column < -(-length[:, None] // BLOCK_SIZE), table, -1)


def _list_entries(
    table: Array,
    shared: Array,
    begin: Array,
    first: Array,
    last: Array,
    most: int,
    tile_lanes: tuple[int, int],
) -> tuple[Array, Array]:
    """Block and info of every entry, zeros past the last one.

    Args:
      table: i32[lanes, max_blocks] in depth-first order.
      shared: of `_depth_first`.
      begin: i32[2 * lanes], the first column that each lane lists, wide before narrow.
      first, last: i32[2 * lanes], the range of entries that those columns take.
      most: length of the list.
      tile_lanes: lanes of a wide and of a narrow tile.
    """
    lanes, max_blocks = table.shape
    number = jnp.arange(most)
    source = jnp.sum(last <= number[:, None], axis=1)
    listed = source < 2 * lanes
    source = jnp.minimum(source, 2 * lanes - 1)
    column = begin[source] + number - first[source]
    lane = source % lanes
    size = jnp.where(source < lanes, *tile_lanes)
    tile_lane = lane // size * size
    end = _first_lane_beyond(shared, lane, column)
    end = jnp.minimum(end - tile_lane, size)
    info = pack(column, lane - tile_lane, end)
    block = table[lane, jnp.clip(column, 0, max_blocks - 1)]
    return jnp.where(listed, block, 0), jnp.where(listed, info, 0).astype(jnp.int32)


def _depth_first(table: Array, held: Array) -> tuple[Array, Array]:
    """Lanes in lexicographic order of their tables, and the blocks shared with the lane before.

    Returns:
      The order i32[lanes], and the leading columns that each place of it shares with the place
      before, i32[lanes + 1]; 0 at both ends.
    """
    lanes, max_blocks = table.shape
    columns = jnp.arange(max_blocks)
    differs = table[:, None] != table[None]
    fork = jnp.min(jnp.where(differs, columns, max_blocks), axis=-1)  # [lanes, lanes]
    at = jnp.minimum(fork, max_blocks - 1)
    mine = jnp.take_along_axis(table, at, axis=1)
    theirs = mine.T  # fork is symmetric: the other lane's entry at the column where they part
    number = jnp.arange(lanes)
    before = jnp.where(fork < max_blocks, theirs < mine, number[None] < number[:, None])
    rank = jnp.sum(before, axis=1)
    order = jnp.zeros(lanes, jnp.int32).at[rank].set(number.astype(jnp.int32))
    shared = jnp.minimum(fork[order[:-1], order[1:]], held[order[1:]])
    ends = jnp.zeros(1, shared.dtype)
    return order, jnp.concatenate([ends, shared, ends]).astype(jnp.int32)


def _owned_columns(
    shared: Array, held: Array, length: Array, group: int, window: int | None, tiles: TreeTiles
) -> tuple[Array, Array]:
    """The columns that each lane adds to its tiles' lists, all in depth-first order.

    A lane's first columns, up to `wide_end`, are read outside its narrow tile too. Of those it
    adds the ones that no earlier lane of its wide tile reads, of the others the ones that no
    earlier lane reads at all.

    Returns:
      First column and number of columns, i32[2 * lanes] each, wide before narrow.
    """
    lanes = held.shape[0]
    wide, narrow = tiles.lanes(group)
    place = jnp.arange(lanes)
    other = jnp.arange(lanes + 1)
    tile = place // narrow * narrow
    far = jnp.iinfo(jnp.int32).max

    def least(inside: Array) -> Array:
        return jnp.min(jnp.where(inside, shared, far), axis=1)

    to_left = least((tile[:, None] <= other) & (other <= place[:, None]))
    tile_end = jnp.minimum(tile + narrow, lanes)
    to_right = least((place[:, None] < other) & (other <= tile_end[:, None]))
    wide_end = jnp.maximum(to_left, to_right)

    wide_begin = jnp.where(place % wide == 0, 0, shared[:-1])
    narrow_begin = jnp.maximum(shared[:-1], wide_end)
    if window is not None:
        seen = jnp.where(length > 0, jnp.maximum(length - window, 0) // BLOCK_SIZE, far)
        same_wide = place[:, None] // wide == place // wide
        same_narrow = (tile[:, None] == tile) & (place[:, None] <= place)
        wide_begin = jnp.maximum(wide_begin, jnp.min(jnp.where(same_wide, seen, far), axis=1))
        narrow_begin = jnp.maximum(narrow_begin, jnp.min(jnp.where(same_narrow, seen, far), axis=1))
    begin = jnp.concatenate([wide_begin, narrow_begin])
    end = jnp.concatenate([wide_end, held])
    return begin, jnp.maximum(end - begin, 0)


def _by_tile(values: Array, num_tiles: int, tile_lanes: int, filler: int) -> Array:
    """[lanes] as [num_tiles, tile_lanes], filled up at the end."""
    missing = num_tiles * tile_lanes - values.shape[0]
    return jnp.pad(values, (0, missing), constant_values=filler).reshape(num_tiles, tile_lanes)


def _full_columns(shared: Array, held: Array, wide_tiles: int, wide_lanes: int) -> Array:
    """How many leading columns all lanes of a wide tile share and fill; i32[wide tiles].

    The last block of a lane may be partly filled, every other one is full.
    """
    far = jnp.iinfo(jnp.int32).max
    within = jnp.where(jnp.arange(held.shape[0]) % wide_lanes == 0, far, shared[:-1])
    common = jnp.minimum(within, held - 1)
    return jnp.maximum(jnp.min(_by_tile(common, wide_tiles, wide_lanes, far), axis=1), 0)


def _first_lane_beyond(shared: Array, lane: Array, column: Array) -> Array:
    """The first place after `lane` that does not share `column` with it; i32 like both."""
    other = jnp.arange(shared.shape[0])
    parts = (other > lane[:, None]) & (shared <= column[:, None])
    return jnp.min(jnp.where(parts, other, shared.shape[0] - 1), axis=1)


def _share_work(
    tile_start: Array, wide_tiles: int, num_kv_heads: int, tiles: TreeTiles
) -> dict[str, Array]:
    """Cuts the entries into shares, one a worker, whose highest cost is as low as it can be.

    A share costs what starting on each of its tiles takes, whoever has the rest of them, and its
    iterations. Tiles are cut between iterations, since one that is partly filled takes as long as
    a full one.
    """
    workers = max(1, tiles.programs // num_kv_heads)
    begin, end = tile_start[:-1], tile_start[1:]
    wide = jnp.arange(begin.shape[0]) < wide_tiles
    step = jnp.where(wide, tiles.wide_keys, tiles.narrow_keys) // BLOCK_SIZE
    costs = _TileCosts(
        iterations=-(-(end - begin) // step),
        start=jnp.where(wide, tiles.wide_tile_cost, tiles.narrow_tile_cost),
        iteration=jnp.where(wide, tiles.wide_cost, tiles.narrow_cost) * step,
    )
    before, first, more, full = _hand_out(costs, workers)

    worker = jnp.arange(1, workers + 1)[:, None]
    tile = jnp.sum(before + more <= worker, axis=1)  # in which the worker starts
    inside = jnp.minimum(tile, begin.shape[0] - 1)
    cut = begin + (first + (worker - before) * full) * step  # [workers, tiles]
    cut = jnp.take_along_axis(cut, inside[:, None], axis=1)[:, 0]
    work_start = jnp.where(tile > inside, tile_start[-1], cut)
    work_start = jnp.concatenate([tile_start[:1], work_start])
    work_tile = jnp.sum(end <= work_start[:-1, None], axis=1)
    arrays = {
        "work_start": work_start,
        "work_tile": work_tile,
        "work_stop": jnp.minimum(tile_start[work_tile + 1], work_start[1:]),
        "tile_start": tile_start,
        "tile_worker": before - (first > 0),
        "tile_pieces": more + (first > 0),
        "period": (full * step)[:1],
    }
    return {name: array.astype(jnp.int32) for name, array in arrays.items()}


class _TileCosts(NamedTuple):
    """Of each tile, i32[tiles]: its iterations, and the costs of starting and of an iteration."""

    iterations: Array
    start: Array
    iteration: Array


def _hand_out(tiles: _TileCosts, workers: int) -> tuple[Array, Array, Array, Array]:
    """Hands out all iterations, in order, by the lowest limit on a worker's cost that suffices.

    Under a limit workers take all that they may, one after the other. LIMITS of them are tried side
    by side. The lowest is an equal part of the cost. The highest always suffices: what a cut costs
    a worker is less than starting on a tile and an iteration of it.

    Returns:
      For each tile, i32[tiles]: the workers that have a share before it, the iterations for the
      last of those, how many more workers have a part, and the iterations of one that has only
      this tile.
    """
    held = tiles.iterations > 0
    cost = jnp.sum(jnp.where(held, tiles.start + tiles.iterations * tiles.iteration, 0))
    least = jnp.max(jnp.where(held, tiles.start + tiles.iteration, 0))
    limit = jnp.maximum(-(-cost // workers), least)
    limit += -(-jnp.arange(LIMITS) * least // (LIMITS - 1))
    # Sums and ranges are 64-bit integers where jax has those enabled.
    limit, tiles = jax.tree.map(lambda part: part.astype(jnp.int32), (limit, tiles))

    def next_tile(state: tuple[Array, Array], tile: tuple[_TileCosts, Array]) -> Any:
        """`state` is how many workers have a share, and what the last of them may still take."""
        used, left = state
        (iterations, start, iteration), full = tile
        first = jnp.clip((left - start) // iteration, 0, iterations)
        more = -(-(iterations - first) // full)
        last = iterations - first - (more - 1) * full
        left -= jnp.where(first > 0, start + first * iteration, 0)
        left = jnp.where(more > 0, limit - start - last * iteration, left)
        return (used + more, left), (used, first, more)

    full = jnp.maximum((limit - tiles.start[:, None]) // tiles.iteration[:, None], 1)
    state = jnp.ones(LIMITS, jnp.int32), limit
    (used, _), shares = jax.lax.scan(next_tile, state, (tiles, full), unroll=TILES_UNROLLED)
    chosen = jnp.argmax(used <= workers)
    before, first, more = (part[:, chosen] for part in shares)
    return before, first, more, full[:, chosen]
