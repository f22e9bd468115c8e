"""The scorer of Game of 24: the model's own verdict, and the rules of the game."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct

from dendrite_jax import engine
from dendrite_jax.engine import Model, State
from dendrite_jax.search import Scored, Thoughts, ValueTokens
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.token_rules import (
    is_legal_step,
    numbers_before,
    parse_step,
    remaining_key,
)


class Game24Scorer(struct.PyTreeNode):
    """Values a step, which ends on its `)`, by the verdict that the model would write next.

    The value is log P(` sure`) of the two verdicts (`search.ValueTokens`): the model's ranking.
    Steps of one problem that leave the same numbers are merged, so that no state is grown twice,
    and a step that leaves one number is an answer. Neither the target nor a solver is looked at:
    which answers are right, and by which different expressions, `solutions` says afterwards.
    """

    rules: bool = struct.field(pytree_node=False, default=True)
    """Whether the rules of the game reject a step that is not legal (value −inf)."""

    def __call__(self, model: Model, state: State, thoughts: Thoughts) -> Scored:
        verdict = ValueTokens.of([vocab.SURE, vocab.IMPOSSIBLE], weights=[1.0, 0.0])
        own = verdict(model, state, thoughts)
        tokens, end = engine.branch_tokens(state, thoughts.branch)
        start = end - thoughts.length
        step = parse_step(tokens, start, end)
        value = own.value
        if self.rules:
            legal = is_legal_step(numbers_before(tokens, start), step)
            value = jnp.where(legal, value, -jnp.inf)
        return Scored(
            value=value,
            merge_key=jnp.where(step.well_formed, remaining_key(step.left), own.merge_key),
            answer=step.well_formed & (step.left_count == 1),
        )
