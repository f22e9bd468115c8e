"""Search at the level of tokens: children are likely next tokens instead of sampled thoughts."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax import engine
from dendrite_jax.cache import NO_BRANCH
from dendrite_jax.engine import NO_TOKEN, Model, State
from dendrite_jax.engine.sampling import token_logprob
from dendrite_jax.search.thoughts import Thoughts


class TopTokens(struct.PyTreeNode):
    """Grows siblings by the likeliest tokens, one each.

    The lanes of siblings stand together, `count` of them, as many as the search has children. Use
    it with `likelihood_prior` and a scorer that knows where a text ends, such as `AnswerTokens`.

    Attributes:
      count: tokens tried after a node, the likeliest that its grammar allows (static).
    """

    count: int = struct.field(pytree_node=False)

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count is {self.count}; it must be at least 1")

    @property
    def max_tokens(self) -> int:
        return 1

    def __call__(
        self, model: Model, state: State, branches: Array, parents: Array
    ) -> tuple[State, Thoughts]:
        if self.count > model.vocab_size:
            raise ValueError(f"count is {self.count}; it must be at most {model.vocab_size}")
        logits = engine.next_logits(model, state, branches)
        allowed, ranked = jax.lax.top_k(engine.mask_logits(state, branches, logits), self.count)
        rank = jnp.arange(branches.shape[0])[:, None] % self.count
        token = jnp.take_along_axis(ranked, rank, axis=1)[:, 0]
        exists = ~jnp.isneginf(jnp.take_along_axis(allowed, rank, axis=1)[:, 0])
        grown = jnp.where(exists, branches, NO_BRANCH)
        logprob = token_logprob(logits, token)
        unknown = engine.is_unknown(state, grown, token)
        state, ok = engine.advance(model, state, grown, token)
        return state, Thoughts(
            branch=branches,
            tokens=jnp.where(ok, token, NO_TOKEN)[:, None],
            length=ok.astype(jnp.int32),
            complete=ok,
            failed=(grown >= 0) & ~ok & ~unknown,
            raw_logprob=jnp.where(ok, logprob, 0.0),
            logprob=jnp.where(ok, logprob, 0.0),
            parent=parents,
        )
