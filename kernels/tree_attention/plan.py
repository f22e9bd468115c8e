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

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.launch import BLOCK_SIZE
from dendrite_jax.kernels.tree_attention.shapes import TreeTiles


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
    entry_info: Array  # i32[entries], column << 16 | first lane of the tile << 8 | end lane
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
    info = column << 16 | (lane - tile_lane) << 8 | end
    block = table[lane, jnp.clip(column, 0, max_blocks - 1)]
    return jnp.where(listed, block, 0), jnp.where(listed, info, 0)


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
    """Cuts the entries into workers' shares of nearly equal cost.

    A tile costs something of its own, less where shares are small, and something for each of its
    entries; an empty one costs nothing. A tile is cut between iterations of its loop, since
    one that is partly filled takes as long as a full one. A share is worth at least a tile's own
    cost and one iteration, so that no two shares start at the same entry of a tile's inside: all
    workers from a tile's first to its last have a part of it, and partials are numbered by worker
    and tile.
    """
    workers = max(1, tiles.programs // num_kv_heads)
    begin, end = tile_start[:-1], tile_start[1:]
    wide = jnp.arange(begin.shape[0]) < wide_tiles
    unit = jnp.where(wide, tiles.wide_cost, tiles.narrow_cost)
    step = jnp.where(wide, tiles.wide_keys, tiles.narrow_keys) // BLOCK_SIZE
    cost = (end - begin) * unit
    most = -(-jnp.sum(cost) // workers) // 2
    tile_cost = jnp.where(wide, tiles.wide_tile_cost, tiles.narrow_tile_cost)
    tile_cost = jnp.minimum(tile_cost, most)
    cost += jnp.where(end > begin, tile_cost, 0)
    total = jnp.cumsum(cost)
    least = jnp.maximum(tiles.least_work * tiles.narrow_cost, jnp.max(tile_cost + unit * step))
    share = jnp.maximum(-(-total[-1] // workers), least)
    at = jnp.arange(workers + 1) * share
    inside = jnp.sum(total <= at[:, None], axis=1)  # the tile that each share starts in
    tile = jnp.minimum(inside, begin.shape[0] - 1)
    spent = at - (total - cost + tile_cost)[tile]
    skipped = -(-spent // (unit * step)[tile]) * step[tile]
    skipped = jnp.clip(skipped, 0, (end - begin)[tile])
    work_start = jnp.where(inside > tile, tile_start[-1], begin[tile] + skipped)
    work_tile = jnp.sum(end <= work_start[:-1, None], axis=1)

    def worker_of(entry: Array) -> Array:
        return jnp.sum(work_start[1:-1] <= entry[:, None], axis=1)

    first = worker_of(begin)
    pieces = jnp.where(end > begin, worker_of(end - 1) - first + 1, 0)
    iteration = tiles.wide_keys // BLOCK_SIZE
    arrays = {
        "period": jnp.maximum(share // (tiles.wide_cost * iteration), 1)[None] * iteration,
        "work_start": work_start,
        "work_tile": work_tile,
        "work_stop": jnp.minimum(tile_start[work_tile + 1], work_start[1:]),
        "tile_start": tile_start,
        "tile_worker": first,
        "tile_pieces": pieces,
    }
    return {name: array.astype(jnp.int32) for name, array in arrays.items()}
