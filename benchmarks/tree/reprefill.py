"""Trees without a cache that branches: the same engine prefills each branch from its full text.

Branches are prefilled a few at a time, so that a call has some 2,000 tokens to multiply, and then
decode together, as many as `TreeSizes.batch_tokens` lets in. One batch of each level is timed.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.benchmarks.harness.counts import check_counts
from dendrite_jax.benchmarks.tree.programs import compile_together, random_prompt
from dendrite_jax.benchmarks.tree.sizes import BatchCost, TreeSizes
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import GenerateConfig, Model, State
from dendrite_jax.kernels.dispatch import PREFILL_CHUNK
from dendrite_jax.serving.compilation import loop_options

ROWS = 4
"""Branches that one call prefills."""


class LevelCost(NamedTuple):
    """Seconds at one level of the tree."""

    lanes: int  # branches of a batch
    prefill: float  # of ROWS branches, from their full text
    decode: float  # of a batch

    def of_branches(self) -> BatchCost:
        """A batch whose every branch is prefilled."""
        return self._batch(self.lanes)

    def of_parents(self, branching: int) -> BatchCost:
        """A batch for which each parent is prefilled once, and forked."""
        return self._batch(math.ceil(self.lanes / branching))

    def _batch(self, prefilled: int) -> BatchCost:
        calls = math.ceil(prefilled / ROWS)
        return BatchCost(self.lanes, calls * self.prefill + self.decode)


@dataclass(frozen=True)
class Reprefill:
    """The programs of one prefix."""

    model: Model
    sizes: TreeSizes
    prefix: int
    compiled: dict[str, Any]

    @classmethod
    def compile(cls, model: Model, sizes: TreeSizes, prefix: int) -> Reprefill:
        """Compiles prefill of ROWS branches and decode of a batch, for every level alike."""
        config = _cache_config(sizes, prefix)
        longest = _longest_text(sizes, prefix)
        # Chunks that divide the longest text, so that little of what is computed is padding.
        chunk = -(-longest // max(1, round(longest / PREFILL_CHUNK)))
        state = jax.eval_shape(partial(engine.init, config=config), model)
        some = jax.ShapeDtypeStruct((ROWS,), jnp.int32)
        batch = jax.ShapeDtypeStruct((config.num_slots,), jnp.int32)
        text = jax.ShapeDtypeStruct((ROWS, longest), jnp.int32)

        def prefill(model: Model, state: State, ids: Array, tokens: Array, count: Array) -> State:
            return engine.prefill(model, state, ids, tokens, count, chunk=chunk)[0]

        def decode(model: Model, state: State, ids: Array) -> tuple[State, Array]:
            state, out = engine.generate(model, state, ids, GenerateConfig(sizes.thought))
            return state, out.tokens

        jobs = {
            "prefill": (jax.jit(prefill, donate_argnums=1), (model, state, some, text, some)),
            "decode": (
                jax.jit(decode, donate_argnums=1, compiler_options=loop_options()),
                (model, state, batch),
            ),
        }
        return cls(model, sizes, prefix, compile_together(jobs))

    def measure(self) -> list[LevelCost]:
        """Times one prefill and one batch of each level."""
        sizes = self.sizes
        config = _cache_config(sizes, self.prefix)
        state = jax.jit(engine.init, static_argnames="config")(self.model, config=config)
        prefills: list[float] = []
        for level in (0, *range(sizes.depth)):  # the first one warms up
            state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), ROWS))
            state, seconds = self._prefill(state, ids, self.prefix + sizes.thought * level)
            state = engine.free(state, ids)
            prefills.append(seconds)

        keys = jax.random.split(jax.random.key(0), config.num_slots)
        state, ids = engine.open_branches(state, keys)
        for some in ids.reshape(-1, ROWS):
            state, _ = self._prefill(state, some, self.prefix)
        state, _ = self._decode(state, jnp.full_like(ids, -1))
        costs: list[LevelCost] = []
        for count, prefill in zip(sizes.level_thoughts, prefills[1:], strict=True):
            busy = jnp.arange(len(ids)) < count
            state, decode = self._decode(state, jnp.where(busy, ids, -1))
            # The others keep up, so that every branch of the next level has its length.
            state, _ = self._decode(state, jnp.where(busy, -1, ids))
            costs.append(LevelCost(min(count, len(ids)), prefill, decode))
        kv.raise_errors(state.cache)
        return costs

    def _prefill(self, state: State, ids: Array, length: int) -> tuple[State, float]:
        """Prefills i32[ROWS] branches with `length` tokens each."""
        tokens = np.tile(
            random_prompt(self.model, _longest_text(self.sizes, self.prefix)), (ROWS, 1)
        )
        count = np.full(ROWS, length, np.int32)
        jax.block_until_ready((state, ids))
        before = state.cache.ledger.totals()
        start = time.perf_counter()
        state = jax.block_until_ready(
            self.compiled["prefill"](self.model, state, ids, tokens, count)
        )
        seconds = time.perf_counter() - start
        check_counts(before, state.cache, prefilled=ROWS * length)
        return state, seconds

    def _decode(self, state: State, ids: Array) -> tuple[State, float]:
        """Samples a thought in each branch of a batch."""
        jax.block_until_ready((state, ids))
        before, branches = state.cache.ledger.totals(), int(jnp.sum(ids >= 0))
        start = time.perf_counter()
        state, tokens = self.compiled["decode"](self.model, state, ids)
        tokens.block_until_ready()
        seconds = time.perf_counter() - start
        steps = self.sizes.thought if branches else 0
        check_counts(before, state.cache, steps=steps, generated=steps * branches)
        return state, seconds


def _longest_text(sizes: TreeSizes, prefix: int) -> int:
    """Tokens above a node of the last level."""
    return prefix + sizes.thought * (sizes.depth - 1)


def _cache_config(sizes: TreeSizes, prefix: int) -> CacheConfig:
    """A batch of branches that share nothing, a whole number of ROWS."""
    lanes = sizes.batch_lanes(prefix) // ROWS * ROWS
    longest = prefix + sizes.thought * sizes.depth
    blocks = -(-longest // CacheConfig.block_size)
    return CacheConfig(num_blocks=lanes * blocks, num_slots=lanes, max_context=longest)
