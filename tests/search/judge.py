"""A scorer whose every answer plain Python computes exactly, from the tokens of the whole path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

from dendrite_jax import engine
from dendrite_jax.engine import Model, State
from dendrite_jax.search import Scored, Thoughts

MODULUS = 97


class Judge(struct.PyTreeNode):
    """Integers, so that float32 is exact; all of them can change without a new trace."""

    weight: jax.Array  # i32[], of a token at place p (from 1): p · weight · token, added up
    merge: jax.Array  # i32[], paths whose sums of tokens agree modulo this are merged
    reject: jax.Array  # i32[], a path whose value is a multiple of this is rejected
    answer: jax.Array  # i32[], a thought that ends after this token is an answer

    @classmethod
    def of(cls, *, weight: int, merge: int, reject: int, answer: int) -> Judge:
        return cls(jnp.int32(weight), jnp.int32(merge), jnp.int32(reject), jnp.int32(answer))

    def __call__(self, model: Model, state: State, thoughts: Thoughts) -> Scored:
        tokens, length = engine.branch_tokens(state, thoughts.branch)
        place = jnp.arange(tokens.shape[1])
        tokens = jnp.where(place < length[:, None], tokens, 0)
        value = jnp.sum((place + 1) * self.weight * tokens, axis=1) % MODULUS
        last = jnp.take_along_axis(thoughts.tokens, jnp.maximum(thoughts.length - 2, 0)[:, None], 1)
        return Scored(
            value=jnp.where(value % self.reject == 0, -jnp.inf, value.astype(jnp.float32)),
            merge_key=jnp.sum(tokens, axis=1) % self.merge,
            answer=(last[:, 0] == self.answer) & (thoughts.length > 1),
        )


class Verdict(NamedTuple):
    """What a judge says of one thought."""

    value: float  # −inf rejects
    merge_key: int
    answer: bool


def verdict(judge: Judge, path: Sequence[int], thought: Sequence[int]) -> Verdict:
    """The same in plain Python: `path` holds everything, the prompt and the thought included."""
    weight, merge = int(judge.weight), int(judge.merge)
    value = sum(place * weight * token for place, token in enumerate(path, start=1)) % MODULUS
    return Verdict(
        value=float("-inf") if value % int(judge.reject) == 0 else float(value),
        merge_key=sum(path) % merge,
        answer=len(thought) > 1 and thought[-2] == int(judge.answer),
    )
