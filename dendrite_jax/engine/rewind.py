"""Asking a branch again for what follows its last token."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.cache import Appended
from dendrite_jax.cache.lanes import check_lanes
from dendrite_jax.cache.state import STALE_BRANCH
from dendrite_jax.engine.state import Model, State
from dendrite_jax.engine.step import Stepped


def rewind(model: Model, state: State, branch_ids: Array) -> tuple[State, Stepped]:
    """Runs each branch's last token again, which a branch that was cut needs before it goes on.

    What it gives is what truncating to one token less and appending that token would. But the
    token's keys and values are in the cache, so that nothing is written: it takes no block, copies
    none, and a flagged branch or one whose blocks others hold can be rewound too. The ledger counts
    the tokens as prefilled.

    Args:
      model: the model.
      state: the engine state; donate it under jit.
      branch_ids: i32[lanes], each at most once; negative for an idle lane.

    Returns:
      The state, whose branches are stale no more, and the logits after each one's last token. A
      branch without a token is not ok and raises a misuse flag.
    """
    cache, pool = state.cache, state.cache.pool
    lanes = check_lanes(cache, branch_ids)
    length = cache.length[lanes.slot]
    ok = lanes.valid & (length > 0)
    misuse = lanes.misuse | jnp.where(jnp.any(lanes.valid & ~ok), STALE_BRANCH, 0)
    position = jnp.maximum(length - 1, 0)
    rows, offset = cache.table[lanes.slot], position % cache.block_size
    column = (position // cache.block_size)[:, None]
    block = jnp.maximum(jnp.take_along_axis(rows, column, axis=1)[:, 0], 0)
    there = Appended(
        ok=ok,
        start=position,
        table=rows,
        length=jnp.where(ok, length, 0),
        block=jnp.full_like(column, cache.num_blocks),  # writes nothing
        offset=offset[:, None],
    )
    pool, hidden = model.forward(pool, there, pool.tokens[block, offset][:, None])
    slot = lanes.where(ok, cache.num_slots)
    cache = cache.replace(
        pool=pool,
        misuse=cache.misuse | misuse,
        ledger=cache.ledger.add(prefilled=jnp.sum(ok), steps=jnp.any(branch_ids >= 0)),
    )
    state = state.replace(
        cache=cache,
        hidden=state.hidden.at[slot].set(hidden[:, 0], mode="drop"),
        stale=state.stale.at[slot].set(False, mode="drop"),
    )
    return state, Stepped(model.unembed(hidden[:, 0]), hidden[:, 0], ok)
