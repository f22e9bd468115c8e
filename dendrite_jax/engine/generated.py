"""The static shape of a generation, and what a generation fills."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine.constraint import finish_reason
from dendrite_jax.engine.state import Model, State
from dendrite_jax.engine.stopping import FAILED
from dendrite_jax.grammar import NO_TOKEN


@dataclass(frozen=True)
class GenerateConfig:
    """Static shape of a generation.

    Attributes:
      max_new_tokens: most tokens a lane gets; `StopRules.limit` sets less without a new trace.
      top_logprobs: how many of the most likely tokens to report at each place.
      return_hidden: whether to keep the hidden state after each token.
      fast_forward: most tokens that a lane takes with one sampled token, in the same step, because
        its grammar leaves no choice after it. The tokens are those of 0, in fewer steps; where the
        blocks run out, a lane ends before such a run if not all of it fits. Logits of
        [lanes, fast_forward, vocab] are held at once. A `LazyTable` has no such runs.
    """

    max_new_tokens: int
    top_logprobs: int = 0
    return_hidden: bool = False
    fast_forward: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {self.max_new_tokens}; it must be at least 1")
        for field in ("top_logprobs", "fast_forward"):
            value = getattr(self, field)
            if value < 0:
                raise ValueError(f"{field} is {value}; it must be at least 0")


class Round(NamedTuple):
    """When a call of `generate` ends though lanes still run; a later one with `begun` goes on.

    A field that is None never does; another value is no new trace.
    """

    pause: Array | int | None = None  # i32[], once so many lanes have ended in this call
    steps: Array | int | None = None  # i32[], after so many token steps


class Taken(NamedTuple):
    """What one step adds to each lane: the first `length` of n tokens."""

    length: Array  # i32[lanes]
    tokens: Array  # i32[lanes, n]
    raw_logprobs: Array  # f32[lanes, n]
    logprobs: Array  # f32[lanes, n]
    top_tokens: Array | None  # i32[lanes, n, top_logprobs]
    top_raw_logprobs: Array | None  # f32[lanes, n, top_logprobs]
    hidden: Array  # [lanes, n, hidden]


class Generated(NamedTuple):
    """The new tokens of each lane; places at or past `length` hold NO_TOKEN and zeros."""

    tokens: Array  # i32[lanes, max_new_tokens]
    length: Array  # i32[lanes]
    raw_logprobs: Array  # f32[lanes, max_new_tokens], under the model's own distribution
    logprobs: Array  # f32[lanes, max_new_tokens], under the processed distribution
    finish: Array  # i32[lanes], an index of FINISH_NAMES
    top_tokens: Array | None  # i32[lanes, max_new_tokens, top_logprobs], most likely first
    top_raw_logprobs: Array | None  # f32[lanes, max_new_tokens, top_logprobs]; None: not asked for
    string_state: Array  # i32[lanes], where stop-string matching stands; give it to go on
    hidden: Array | None  # [lanes, max_new_tokens, hidden], after each token, if asked for

    @classmethod
    def empty(
        cls,
        model: Model,
        state: State,
        branch_ids: Array,
        config: GenerateConfig,
        string_state: Array | None = None,
    ) -> Generated:
        """No tokens yet; lanes run but for the idle and those whose grammars have ended them."""
        lanes = branch_ids.shape[0]
        shape = (lanes, config.max_new_tokens)
        hidden = (*shape, model.hidden_size)
        top = (*shape, config.top_logprobs)
        return cls(
            tokens=jnp.full(shape, NO_TOKEN, jnp.int32),
            length=jnp.zeros(lanes, jnp.int32),
            raw_logprobs=jnp.zeros(shape, jnp.float32),
            logprobs=jnp.zeros(shape, jnp.float32),
            finish=jnp.where(branch_ids >= 0, finish_reason(state, branch_ids), FAILED),
            # No array of size zero: jaxlib 0.11 crashes on one that a loop under shard_map carries.
            top_tokens=jnp.full(top, NO_TOKEN, jnp.int32) if config.top_logprobs else None,
            top_raw_logprobs=jnp.zeros(top, jnp.float32) if config.top_logprobs else None,
            string_state=jnp.zeros(lanes, jnp.int32) if string_state is None else string_state,
            hidden=jnp.zeros(hidden, model.dtype) if config.return_hidden else None,
        )

    def append(self, taken: Taken) -> Generated:
        """Puts the tokens of a step at the end of each lane's."""
        lanes, limit = self.tokens.shape
        column = jnp.arange(taken.tokens.shape[1])
        place = self.length[:, None] + column
        place = jnp.where(column < taken.length[:, None], place, limit)
        lane = jnp.arange(lanes)[:, None]

        def put(rows: Array | None, new: Array | None) -> Array | None:
            if rows is None or new is None:
                return None
            return rows.at[lane, place].set(new, mode="drop")

        grown: dict[str, Any] = {
            name: put(getattr(self, name), getattr(taken, name)) for name in _BY_TOKEN
        }
        return self._replace(length=self.length + taken.length, **grown)

    def replaced(self, lanes: Array, by: Generated) -> Generated:
        """`by` in the lanes bool[lanes]: with `empty`, lanes that begin anew on other branches."""

        def choose(new: Array, old: Array) -> Array:
            return jnp.where(lanes.reshape(-1, *(1,) * (old.ndim - 1)), new, old)

        return jax.tree.map(choose, by, self)


_BY_TOKEN = ("tokens", "raw_logprobs", "logprobs", "top_tokens", "top_raw_logprobs", "hidden")
"""What `Generated` and `Taken` hold for each token."""
