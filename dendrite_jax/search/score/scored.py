"""What a scorer sees and gives back, and the scorers that need no task."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search.piece import Piece
from dendrite_jax.search.thoughts import Thoughts


class Scored(NamedTuple):
    """A scorer's judgement of each thought."""

    value: Array  # f32[lanes], higher is better, −inf rejects
    merge_key: Array  # i32[lanes], thoughts of one problem with equal keys are merged
    answer: Array  # bool[lanes], the thought ends its path
    short: Array | bool = False  # bool[lanes], no value for want of the scorer's own room


class Scorer(Protocol):
    """A pure function of the engine's state; it may read the state but not change it.

    An array f32[lanes] in place of a `Scored` is the values: no thought is an answer then, and only
    equal paths are merged.
    """

    def __call__(self, model: Model, state: State, thoughts: Thoughts) -> Scored | Array: ...


def as_scored(given: Any, thoughts: Thoughts) -> Scored:
    """What a scorer gave as a `Scored` of the thoughts.

    Raises:
      ValueError: neither a `Scored` nor an array of values, or not one entry for each thought.
    """
    if not isinstance(given, Scored):
        if not hasattr(given, "shape"):
            raise ValueError(
                f"score gave a {type(given).__name__}; it must give a Scored, or an array of one "
                f"value for each thought"
            )
        _check_entry("value", given, thoughts)
        return without_answers(jnp.asarray(given, jnp.float32), thoughts)
    for field in ("value", "merge_key", "answer"):
        _check_entry(field, getattr(given, field), thoughts)
    return given._replace(value=jnp.asarray(given.value, jnp.float32))


def _check_entry(field: str, entry: Any, thoughts: Thoughts) -> None:
    shape = jnp.shape(entry)
    if shape != thoughts.length.shape:
        lanes = thoughts.length.shape[0]
        raise ValueError(
            f"score gave a {field} of shape {list(shape)}; it must be [{lanes}], an entry for each "
            f"thought"
        )


def usable_value(scored: Scored, thoughts: Thoughts) -> Array:
    """f32[lanes]: the value; −inf where there is no complete thought, or it is NaN or infinite."""
    usable = (thoughts.branch >= 0) & thoughts.complete & (scored.value < jnp.inf)
    return jnp.where(usable, scored.value, -jnp.inf)


def thought_key(tokens: Array) -> Array:
    """A hash i32[lanes] of token rows i32[lanes, n] (MurmurHash3's finaliser after each id)."""

    def mix(code: Array, column: Array) -> tuple[Array, None]:
        code ^= column.astype(jnp.uint32)
        code = (code ^ (code >> 16)) * jnp.uint32(0x85EBCA6B)
        code = (code ^ (code >> 13)) * jnp.uint32(0xC2B2AE35)
        return code ^ (code >> 16), None

    start = jnp.full(tokens.shape[0], 0x9E3779B9, jnp.uint32)
    code, _ = jax.lax.scan(mix, start, tokens.T)
    return jax.lax.bitcast_convert_type(code, jnp.int32)


def path_key(thoughts: Thoughts) -> Array:
    """Keys i32[lanes] that merge a thought with its equals from the same parent only."""
    return thought_key(jnp.concatenate([thoughts.parent[:, None], thoughts.tokens], axis=1))


def mean_loglikelihood(model: Model, state: State, thoughts: Thoughts) -> Scored:
    """Scores a thought by the mean raw log-probability of its tokens."""
    return without_answers(thoughts.raw_logprob / jnp.maximum(thoughts.length, 1), thoughts)


def sum_loglikelihood(model: Model, state: State, thoughts: Thoughts) -> Scored:
    """Scores a thought by its raw log-probability; their "sum" along a path is the path's."""
    return without_answers(thoughts.raw_logprob, thoughts)


def revalue(
    scorer: Scorer | None, value: Array, model: Model, state: State, thoughts: Thoughts
) -> Scored:
    """Values f32[lanes] beside a scorer's merge keys, answers and rejections.

    With None nothing is an answer or rejected, and only equal paths are merged.
    """
    if scorer is None:
        return without_answers(value, thoughts)
    scored = as_scored(scorer(model, state, thoughts), thoughts)
    return scored._replace(value=jnp.where(scored.value > -jnp.inf, value, -jnp.inf))


class AnswerTokens(Piece):
    """A scorer, to which a thought that ends with one of some tokens is an answer too."""

    scorer: Scorer | None  # `mean_loglikelihood` when None
    tokens: Array  # i32[n], such as the ids that end a text; stop tokens of the thoughts as well

    def __call__(self, model: Model, state: State, thoughts: Thoughts) -> Scored:
        scorer = mean_loglikelihood if self.scorer is None else self.scorer
        scored = as_scored(scorer(model, state, thoughts), thoughts)
        if not self.tokens.size:  # no loop may read an array of size zero
            return scored
        place = jnp.maximum(thoughts.length - 1, 0)
        last = jnp.take_along_axis(thoughts.tokens, place[:, None], axis=1)
        return scored._replace(answer=scored.answer | jnp.any(last == self.tokens, axis=1))


class RandomValues(Piece):
    """The control of every value-guided search: random values in place of a scorer's own.

    Its merge keys, answers and rejections hold.
    """

    scorer: Scorer

    def __call__(self, model: Model, state: State, thoughts: Thoughts) -> Scored:
        keys = jax.random.wrap_key_data(state.key[jnp.maximum(thoughts.branch, 0)])
        value = jax.vmap(lambda key: jax.random.uniform(key))(keys)
        return revalue(self.scorer, value, model, state, thoughts)


class SumLoglikelihood(Piece):
    """The log-probability of a thought's tokens in place of a scorer's own value.

    Its merge keys, answers and rejections hold.
    """

    scorer: Scorer

    def __call__(self, model: Model, state: State, thoughts: Thoughts) -> Scored:
        return revalue(self.scorer, thoughts.raw_logprob, model, state, thoughts)


def without_answers(value: Array, thoughts: Thoughts) -> Scored:
    """Values f32[lanes] of thoughts of which none is an answer and none equals another path's."""
    return Scored(value, path_key(thoughts), jnp.zeros_like(thoughts.complete))
