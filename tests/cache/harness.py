"""Runs every call on a cache and on the plain-Python model, and compares the two after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cache.model import Block, CacheModel
from dendrite_jax import cache as kv
from dendrite_jax.cache import (
    Appended,
    Cache,
    CacheConfig,
    CacheStats,
    Codec,
    KVPool,
    KVShape,
    debug,
)
from dendrite_jax.cache.state import NO_BLOCK

LANES = 4
"""Lanes of every call, so that each function is compiled once a configuration."""
TOKENS = 6
"""Most tokens of a lane in one append."""
NUM_LAYERS = 2
HEAD_DIM = 2
MODEL_SHAPE = kv.uniform_shape(num_layers=NUM_LAYERS, num_kv_heads=1, head_dim=HEAD_DIM)
SMALL = CacheConfig(num_blocks=9, num_slots=6, max_context=14, block_size=4, debug=True)


def write(pool: KVPool, appended: Appended, tokens: jax.Array) -> KVPool:
    """Stands in for a model: a token's key in layer l is token + l / 4, its value −key."""
    groups = []
    for group in pool.groups:
        arrays = dict(group.arrays)
        heads = next(iter(arrays.values())).shape[2]
        for place, layer in enumerate(group.layers):
            key = jnp.broadcast_to(
                tokens[..., None, None] + layer / 4, (*tokens.shape, heads, HEAD_DIM)
            )
            for name, new in group.codec.encode(key, -key).items():
                at = arrays[name].at[place, appended.block, :, appended.offset]
                arrays[name] = at.set(new, mode="drop")
        groups.append(group.replace(arrays=arrays))
    return pool.replace(groups=tuple(groups))


@partial(jax.jit, donate_argnums=0)
def append(
    cache: Cache, ids: jax.Array, tokens: jax.Array, count: jax.Array
) -> tuple[Cache, Appended]:
    cache, appended = kv.append(cache, ids, tokens, count)
    return cache.replace(pool=write(cache.pool, appended, tokens)), appended


@jax.jit
def inspect(cache: Cache) -> tuple[debug.Violations, CacheStats]:
    return debug.violations(cache), kv.stats(cache)


open_branches = jax.jit(kv.open_branches, donate_argnums=0)
fork = jax.jit(kv.fork, donate_argnums=0)
truncate = jax.jit(kv.truncate, donate_argnums=0)
free = jax.jit(kv.free, donate_argnums=0)


class Harness:
    """A cache and its model, driven together; every method checks all there is to see."""

    def __init__(
        self,
        config: CacheConfig = SMALL,
        shape: KVShape = MODEL_SHAPE,
        codecs: Sequence[Codec] | None = None,
    ) -> None:
        self.cache = kv.init(config, shape, codecs=codecs)
        self._block_bytes = kv.block_bytes(shape, block_size=config.block_size, codecs=codecs)
        self.model = CacheModel(config)
        self._next_token = 100
        self._seen = jax.device_get(self.cache)
        self.check()

    def open(self, count: int = 1) -> list[int]:
        """Opens branches, one a lane."""
        wanted = [lane < count for lane in range(LANES)]
        self.cache, ids = open_branches(self.cache, np.array(wanted))
        self.model.open(wanted, ids.tolist())
        self.check()
        return ids.tolist()[:count]

    def fork(
        self,
        parents: Sequence[int],
        children: Sequence[int] | None = None,
        length: Sequence[int] | None = None,
    ) -> list[int]:
        """Forks up to LANES parents, into the given slots or any, whole or so many tokens."""
        lanes = _pad(parents)
        slots = None if children is None else _pad(children)
        kept = None if length is None else _pad(length)
        self.cache, ids = fork(
            self.cache, np.array(lanes), slots and np.array(slots), kept and np.array(kept)
        )
        self.model.fork(lanes, slots, ids.tolist(), kept)
        self.check()
        return ids.tolist()[: len(parents)]

    def truncate(self, lengths: Mapping[int, int] | Sequence[tuple[int, int]]) -> list[bool]:
        """Cuts up to LANES branches; (branch, tokens to keep) a lane."""
        pairs = list(lengths.items() if isinstance(lengths, Mapping) else lengths)
        ids, kept = _pad([slot for slot, _ in pairs]), _pad([kept for _, kept in pairs])
        self.cache, cut = truncate(self.cache, np.array(ids), np.array(kept))
        assert cut.tolist() == self.model.truncate(ids, kept)
        self.check()
        return cut.tolist()[: len(pairs)]

    def resize(self, config: CacheConfig) -> None:
        """Moves the cache into other capacities."""
        self.cache = kv.resize(self.cache, config)
        self.model.resize(config)
        self.check()

    def free(self, ids: Sequence[int]) -> None:
        """Frees up to LANES branches."""
        self.cache = free(self.cache, np.array(_pad(ids)))
        self.model.free(ids)
        self.check()

    def append(
        self, counts: Mapping[int, int] | Sequence[tuple[int, int]], width: int = TOKENS
    ) -> list[bool]:
        """Appends new tokens, no two alike, to up to LANES branches; (branch, count) a lane.

        A count above `width` asks for more than the call holds.
        """
        pairs = list(counts.items() if isinstance(counts, Mapping) else counts)
        ids = _pad([slot for slot, _ in pairs])
        tokens = self._next_token + np.arange(LANES * width).reshape(LANES, width)
        self._next_token += tokens.size
        count = [count for _, count in pairs] + [width] * (LANES - len(pairs))
        self.cache, appended = append(self.cache, np.array(ids), tokens, np.array(count))
        wanted = [
            [row[0] + i for i in range(n)] for row, n in zip(tokens.tolist(), count, strict=True)
        ]
        taken = self.model.append(ids, wanted, width)
        before = self._seen
        self.check()
        self._check_appended(before, jax.device_get(appended), ids, count, taken)
        return taken[: len(pairs)]

    def tokens(self, branch: int) -> list[int]:
        """A branch's tokens as its table row and the keys of layer 0 tell."""
        group, place = self._seen.pool.group_of(0)
        k, _ = _decoded(self._seen.pool.groups[group])
        return _contents(self._seen, branch, k[place, :, 0, :, 0]).astype(int).tolist()

    @property
    def misuse(self) -> int:
        return int(self._seen.misuse)

    @property
    def peak_blocks(self) -> int:
        return int(self._seen.peak_blocks)

    @property
    def blocks_short(self) -> int:
        return int(self._seen.blocks_short)

    def error(self, branch: int) -> int:
        return int(self._seen.error[branch])

    def ledger(self) -> dict[str, int]:
        return self._seen.ledger.totals()

    def blocks_free(self) -> int:
        return int(np.sum(self._seen.pool.ref_count == 0))

    def check(self) -> None:
        """Compares the cache with the model, and checks the cache's own invariants."""
        found, stats = jax.device_get(inspect(self.cache))
        assert not any(vars(found).values()), found
        cache = self._seen = jax.device_get(self.cache)
        model = self.model
        assert set(np.flatnonzero(cache.alive)) == model.branches.keys()
        assert cache.misuse == model.misuse
        assert cache.peak_blocks == model.peak_blocks
        assert cache.blocks_short == model.blocks_short
        assert self.ledger() == model.ledger
        for slot, branch in model.branches.items():
            assert cache.length[slot] == len(branch.tokens)
            assert cache.error[slot] == branch.error
            self._check_contents(cache, slot, branch.tokens)
        self._check_blocks(cache)
        self._check_stats(stats)

    def _check_contents(self, cache: Any, slot: int, tokens: list[int]) -> None:
        assert _contents(cache, slot, cache.pool.tokens).tolist() == tokens
        for group in cache.pool.groups:
            k, v = _decoded(group)
            for place, layer in enumerate(group.layers):
                key = np.repeat((np.array(tokens) + layer / 4)[:, None], HEAD_DIM, axis=-1)
                for head in range(k.shape[2]):
                    np.testing.assert_array_equal(_contents(cache, slot, k[place, :, head]), key)
                    np.testing.assert_array_equal(_contents(cache, slot, v[place, :, head]), -key)

    def _check_blocks(self, cache: Any) -> None:
        """Two table entries name one block exactly where the model's branches share one."""
        ids: dict[Block, int] = {}
        for slot, branch in self.model.branches.items():
            row = cache.table[slot]
            held = row[row != NO_BLOCK].tolist()
            assert len(held) == len(branch.blocks)
            for block, number in zip(branch.blocks, held, strict=True):
                assert ids.setdefault(block, number) == number
        assert len(set(ids.values())) == len(ids)
        for block, holders in self.model.holders().items():
            assert cache.pool.ref_count[ids[block]] == holders

    def _check_stats(self, stats: Any) -> None:
        model, config = self.model, self.model.config
        branches = model.branches.values()
        blocks = model.holders()
        filled: Counter[Block] = Counter()  # of the holder that has most tokens in the block
        for branch in branches:
            for column, block in enumerate(branch.blocks):
                held = min(config.block_size, len(branch.tokens) - column * config.block_size)
                filled[block] = max(filled[block], held)
        places = len(blocks) * config.block_size
        assert stats.branches == len(branches)
        assert stats.blocks_used == len(blocks)
        assert stats.blocks_free == config.num_blocks - len(blocks)
        assert stats.blocks_shared == sum(holders > 1 for holders in blocks.values())
        np.testing.assert_allclose(
            (stats.sharing_ratio, stats.fragmentation),
            (blocks.total() / len(blocks), 1 - sum(filled.values()) / places) if blocks else (1, 0),
            rtol=1e-6,
            atol=1e-6,
        )
        assert stats.bytes_used == len(blocks) * self._block_bytes

    def _check_appended(
        self, before: Any, appended: Any, ids: list[int], count: list[int], taken: list[bool]
    ) -> None:
        """Checks where the cache told the model to write, and that nothing else was written."""
        after, size = self._seen, self.model.config.block_size
        written: set[int] = set()
        assert appended.ok.tolist() == taken
        for lane, slot in enumerate(ids):
            tokens = count[lane] if taken[lane] else 0
            assert np.all(appended.block[lane, tokens:] == after.pool.ref_count.size)
            if not tokens:
                assert appended.length[lane] == 0
                continue
            start = before.length[slot]
            assert (appended.start[lane], appended.length[lane]) == (start, after.length[slot])
            np.testing.assert_array_equal(appended.table[lane], after.table[slot])
            position = start + np.arange(tokens)
            block = after.table[slot, position // size]
            np.testing.assert_array_equal(appended.block[lane, :tokens], block)
            np.testing.assert_array_equal(appended.offset[lane, :tokens], position % size)
            assert written.isdisjoint(block.tolist())
            written |= set(block.tolist())
        differs = np.any(before.pool.tokens != after.pool.tokens, axis=1)
        arrays = ([g.arrays for g in state.pool.groups] for state in (before, after))
        for old, new in zip(*map(jax.tree.leaves, arrays), strict=True):
            differs |= np.any(old != new, axis=(0, 2, 3, 4))
        changed = np.flatnonzero(differs)
        assert set(changed) <= written
        assert np.all(after.pool.ref_count[changed] == 1)


def _pad(ids: Sequence[int]) -> list[int]:
    return [*ids, *[-1] * (LANES - len(ids))]


def _decoded(group: kv.LayerGroup) -> tuple[np.ndarray, np.ndarray]:
    """A group's keys and values [layers, blocks, kv_heads, block_size, head_dim], on the host."""
    k, v = group.codec.decode(group.arrays)
    return np.asarray(k), np.asarray(v)


def _contents(cache: Any, branch: int, per_token: np.ndarray) -> np.ndarray:
    """The entries of [blocks, block_size, ...] that a branch's table row leads to, in order."""
    rows = per_token[np.maximum(cache.table[branch], 0)]
    return rows.reshape(-1, *per_token.shape[2:])[: cache.length[branch]]
