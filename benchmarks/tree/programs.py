"""The compiled programs of `dendrite bench tree`: prefill a prompt, and grow a frontier."""

from __future__ import annotations

import os
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax import engine
from dendrite_jax.benchmarks.tree.sizes import TreeSizes
from dendrite_jax.engine import GenerateConfig, Model, State
from dendrite_jax.serving.compilation import loop_options

Name = TypeVar("Name", bound=Hashable)


class Grown(NamedTuple):
    """What a round leaves."""

    kept: Array  # i32[lanes], the branches kept, then −1
    tokens: Array  # i32[lanes, thought], what every branch got, kept or not


def grow(
    model: Model,
    state: State,
    frontier: Array,
    width: Array,
    keep: Array,
    seed: Array,
    *,
    thought: int,
) -> tuple[State, Grown]:
    """One round: fork each branch, sample the thoughts, keep some at random, free the others.

    Args:
      model: the model.
      state: the engine state; donated.
      frontier: i32[lanes], the branches to grow, then −1; they are freed once forked.
      width: i32[], children of each, which take lanes `width * i` and following.
      keep: i32[], how many children stay, in their order; all where there are no more.
      seed: i32[], of the choice of what is kept.
      thought: tokens that each child gets.
    """
    lanes = frontier.shape[0]
    state, children = engine.fork(state, frontier[jnp.arange(lanes) // width])
    state = engine.free(state, frontier)
    state, out = engine.generate(model, state, children, GenerateConfig(thought))
    luck = jax.random.uniform(jax.random.key(seed), (lanes,))
    luck = jnp.where(children >= 0, luck, -1.0)
    rank = jnp.zeros(lanes, jnp.int32).at[jnp.argsort(-luck)].set(jnp.arange(lanes))
    stays = (rank < keep) & (children >= 0)
    state = engine.free(state, jnp.where(stays, -1, children))
    place = jnp.where(stays, jnp.cumsum(stays) - 1, lanes)
    kept = jnp.full(lanes, -1, jnp.int32).at[place].set(children, mode="drop")
    return state, Grown(kept, out.tokens)


def compile_together(jobs: dict[Name, tuple[Any, tuple[Any, ...]]]) -> dict[Name, Any]:
    """Compiles each (jitted function, its arguments or their shapes), several at a time."""

    def build(job: tuple[Any, tuple[Any, ...]]) -> Any:
        jitted, arguments = job
        return jitted.lower(*arguments).compile()

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(jobs, pool.map(build, jobs.values()), strict=True))


def random_prompt(model: Model, length: int) -> np.ndarray:
    """Token ids i32[length]."""
    draw = np.random.default_rng(0).integers(0, model.vocab_size, length)
    return draw.astype(np.int32)


@dataclass(frozen=True)
class TreePrograms:
    """A model with its cache size and the programs that both workloads run."""

    model: Model
    sizes: TreeSizes
    compiled: dict[str | int, Any]
    """"open", "prefill", and a `grow` by each number of lanes."""

    @classmethod
    def compile(cls, model: Model, sizes: TreeSizes, lanes: tuple[int, ...]) -> TreePrograms:
        """Compiles `grow` for each number of lanes, and what comes before it."""
        options = loop_options()
        state = jax.eval_shape(partial(engine.init, config=sizes.cache_config), model)
        scalar = jax.ShapeDtypeStruct((), jnp.int32)

        def prefill(model: Model, state: State, ids: Array, tokens: Array) -> State:
            return engine.prefill(model, state, ids, tokens, jnp.array([sizes.piece]))[0]

        prefill_arguments = (
            model,
            state,
            jax.ShapeDtypeStruct((1,), jnp.int32),
            jax.ShapeDtypeStruct((1, sizes.piece), jnp.int32),
        )
        jitted_grow = jax.jit(
            partial(grow, thought=sizes.thought), donate_argnums=1, compiler_options=options
        )
        jobs: dict[str | int, tuple[Any, tuple[Any, ...]]] = {
            "open": (
                jax.jit(engine.open_branches, donate_argnums=0),
                (state, jax.random.split(jax.random.key(0), 1)),
            ),
            "prefill": (jax.jit(prefill, donate_argnums=1), prefill_arguments),
        }
        for count in lanes:
            frontier = jax.ShapeDtypeStruct((count,), jnp.int32)
            jobs[count] = (jitted_grow, (model, state, frontier, scalar, scalar, scalar))
        return cls(model, sizes, compile_together(jobs))

    def empty(self) -> State:
        """A state without branches, ready on the device."""
        init = jax.jit(engine.init, static_argnames="config")
        return jax.block_until_ready(init(self.model, config=self.sizes.cache_config))

    def prompt(self, state: State, tokens: np.ndarray) -> tuple[State, Array]:
        """Opens a branch and prefills it, a piece a call; the state and the branch i32[1]."""
        state, root = self.compiled["open"](state, jax.random.split(jax.random.key(1), 1))
        for piece in tokens.reshape(-1, 1, self.sizes.piece):
            state = self.compiled["prefill"](self.model, state, root, piece)
        return state, root

    def grow(
        self, state: State, frontier: Array, lanes: int, width: int, keep: int, seed: int = 0
    ) -> tuple[State, Grown]:
        """`grow` in the smallest program that has `lanes` lanes, with −1 after the frontier."""
        program = min(n for n in self.compiled if isinstance(n, int) and n >= lanes)
        if len(frontier) < program:
            frontier = jnp.pad(frontier, (0, program - len(frontier)), constant_values=-1)
        numbers = (np.int32(value) for value in (width, keep, seed))
        return self.compiled[program](self.model, state, frontier, *numbers)
