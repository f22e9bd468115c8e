"""The engine's functions compiled, once a process: what is static in each is said here alone.

Static, so that another value is another program, are the shapes of all arrays and
  `init`: config, allow_longer_context
  `prefill`: chunk
  `generate`: config (the capacity; limits, stop tokens, sampling and rounds are data)
and which optional fields are None. `lane_bucket` and `length_bucket` round shapes to a few.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import jax
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.cache import CacheStats
from dendrite_jax.engine import Generated, Model, State
from dendrite_jax.serving.compilation import loop_options


class Programs(NamedTuple):
    """Jitted functions of `dendrite_jax.engine`, called as those are.

    They donate the state that they are given: go on with the one that they return.
    """

    init: Any
    open_branches: Any
    set_keys: Any
    prefill: Any
    step: Any
    score_tokens: Any
    generate: Any
    fork: Any
    free: Any
    constrain: Any
    next_logits: Any  # these last donate nothing
    branch_tokens: Any


@cache
def compiled() -> Programs:
    """The programs, each compiled when it first meets arguments of new shapes."""
    return Programs(
        init=jax.jit(engine.init, static_argnames=("config", "allow_longer_context")),
        open_branches=jax.jit(engine.open_branches, donate_argnums=0),
        set_keys=jax.jit(engine.set_keys, donate_argnums=0),
        prefill=jax.jit(engine.prefill, static_argnames="chunk", donate_argnums=1),
        step=jax.jit(engine.step, donate_argnums=1),
        score_tokens=jax.jit(engine.score_tokens, donate_argnums=1),
        generate=jax.jit(
            engine.generate,
            static_argnames="config",
            donate_argnums=1,
            compiler_options=loop_options(),
        ),
        fork=jax.jit(engine.fork, donate_argnums=0),
        free=jax.jit(engine.free, donate_argnums=0),
        constrain=jax.jit(engine.constrain, donate_argnums=0),
        next_logits=jax.jit(engine.next_logits),
        branch_tokens=jax.jit(engine.branch_tokens),
    )


class HostPrograms(NamedTuple):
    """What only the host's own helpers call."""

    root_keys: Any
    open_prompts: Any
    clear_errors: Any
    begin: Any
    stats: Any


@cache
def host_programs() -> HostPrograms:
    """The programs of this package's helpers; `begin`'s config is static."""
    return HostPrograms(
        root_keys=jax.jit(_root_keys),
        open_prompts=jax.jit(_open_prompts, donate_argnums=1),
        clear_errors=jax.jit(_clear_errors, donate_argnums=0),
        begin=jax.jit(Generated.empty, static_argnames="config"),
        stats=jax.jit(_stats),
    )


def _root_keys(seed: Array, number: Array) -> Array:
    """The words u32[n, 2] of a key for each number i32[n], which depends on nothing else."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), number)
    return jax.random.key_data(keys)


def _open_prompts(
    model: Model, state: State, words: Array, tokens: Array, count: Array
) -> tuple[State, Array, Array]:
    """Opens a branch of key words u32[lanes, 2] for each prompt that has tokens, and prefills it.

    Returns the state, i32[lanes] branch ids (negative where there is none) and bool[lanes], where
    the branch holds its prompt.
    """
    cache, ids = kv.open_branches(state.cache, count > 0)
    keys = jax.random.wrap_key_data(words)
    state = engine.set_keys(state.replace(cache=cache), ids, keys)
    state, stepped = engine.prefill(model, state, ids, tokens, count)
    return state, ids, stepped.ok


def _clear_errors(state: State, branch_ids: Array) -> State:
    """Takes the flags of branches i32[lanes] and of refused calls back."""
    cache = state.cache
    slot = jax.numpy.where(branch_ids >= 0, branch_ids, cache.num_slots)
    return state.replace(
        cache=cache.replace(
            error=cache.error.at[slot].set(0, mode="drop"),
            misuse=jax.numpy.zeros_like(cache.misuse),
            blocks_short=jax.numpy.zeros_like(cache.blocks_short),
        )
    )


def _stats(state: State) -> CacheStats:
    return kv.stats(state.cache)
