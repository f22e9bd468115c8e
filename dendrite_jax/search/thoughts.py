"""Growing branches by one thought each: the first of the three pieces of a search."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax import engine
from dendrite_jax.engine import PLAIN, GenerateConfig, Model, Sampling, State, StopRules
from dendrite_jax.engine.stopping import FAILED, LENGTH, RUNNING, STOP_STRING, STOP_TOKEN


class Thoughts(NamedTuple):
    """Sampled thoughts, one a lane; problems × proposals, flattened."""

    branch: (
        Array  # i32[lanes], the branch that ends with the thought; NO_BRANCH where there is none
    )
    tokens: Array  # i32[lanes, thought_tokens], NO_TOKEN past the end
    length: Array  # i32[lanes]
    complete: Array  # bool[lanes], ended as it should, and not cut at its length
    failed: Array  # bool[lanes], the branch ran out of blocks or context
    raw_logprob: Array  # f32[lanes], sum over the thought
    logprob: Array  # f32[lanes]
    parent: Array  # i32[lanes], node that the thought grows from
    finish: Array | int = RUNNING  # i32[lanes], why it ended (FINISH_NAMES); RUNNING: not told


class Expand(Protocol):
    """A pure function that grows each branch by a thought of at most `max_tokens` tokens."""

    @property
    def max_tokens(self) -> int: ...

    def __call__(
        self, model: Model, state: State, branches: Array, parents: Array
    ) -> tuple[State, Thoughts]:
        """Grows branches i32[lanes] (NO_BRANCH: idle), children of tree nodes `parents` i32[lanes].

        The branches are the search's to keep or free afterwards.
        """
        ...


class SampleThoughts(struct.PyTreeNode):
    """A thought is what the model samples up to a stop rule.

    Attributes:
      max_tokens: most tokens of a thought (static).
      stop: what ends a thought; one that has met no stop rule by `max_tokens` is not complete.
        Without any stop rule, all thoughts are of that length, and complete.
      sampling: how its tokens are sampled.
      any_end: a thought that reached `max_tokens` is complete beside stop rules too (static).
    """

    max_tokens: int = struct.field(pytree_node=False)
    stop: StopRules = struct.field(default_factory=StopRules.of)
    sampling: Sampling = PLAIN
    any_end: bool = struct.field(pytree_node=False, default=False)

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens is {self.max_tokens}; it must be at least 1")

    @property
    def ends_by_length(self) -> bool:
        """Whether a thought that reached `max_tokens` is complete."""
        tokens, strings = self.stop.tokens, self.stop.strings
        return self.any_end or (strings is None and (tokens is None or tokens.size == 0))

    def __call__(
        self, model: Model, state: State, branches: Array, parents: Array
    ) -> tuple[State, Thoughts]:
        shape = GenerateConfig(max_new_tokens=self.max_tokens)
        state, out = engine.generate(model, state, branches, shape, self.sampling, self.stop)
        failed = (branches >= 0) & (out.finish == FAILED)
        complete = (out.finish == STOP_TOKEN) | (out.finish == STOP_STRING)
        if self.ends_by_length:
            complete |= out.finish == LENGTH
        return state, Thoughts(
            branch=branches,
            tokens=out.tokens,
            length=out.length,
            complete=complete,
            failed=failed,
            raw_logprob=jnp.sum(out.raw_logprobs, axis=1),
            logprob=jnp.sum(out.logprobs, axis=1),
            parent=parents,
            finish=out.finish,
        )
