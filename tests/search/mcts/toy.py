"""A deterministic environment that both mctx and the search core run on."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np

from dendrite_jax.search.mcts.core import Expansion
from dendrite_jax.search.tree import NO_NODE

NUM_STATES = 997


class Toy:
    """Problems × states with random priors and values; a move leads to another state."""

    def __init__(self, problems: int, num_children: int, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        shape = (problems, NUM_STATES)
        self.prior_logits = jnp.asarray(
            generator.normal(size=(*shape, num_children)).astype(np.float32)
        )
        self.values = jnp.asarray(generator.uniform(size=shape).astype(np.float32))
        self.problems, self.num_children = problems, num_children

    def child(self, state: jax.Array, move: jax.Array) -> jax.Array:
        return (state * self.num_children + move + 1) % NUM_STATES

    def expand(
        self, states: jax.Array, nodes: jax.Array, first_child: jax.Array
    ) -> tuple[jax.Array, Expansion]:
        """`core.Expand`; states is i32[problems, nodes], of every node."""
        problem = jnp.arange(self.problems)[:, None]
        state = states[problem, jnp.maximum(nodes, 0)]
        moves = jnp.arange(self.num_children)
        reached = self.child(state[..., None], moves)
        rows = jnp.where(
            (nodes == NO_NODE)[..., None], states.shape[1], first_child[..., None] + moves
        )
        states = states.at[problem[..., None], rows].set(reached, mode="drop")
        return states, Expansion(
            prior_logits=self.prior_logits[problem, state],
            value=self.values[problem[..., None], reached],
            terminal=jnp.zeros(reached.shape, bool),
            out_of_room=jnp.zeros(nodes.shape, bool),
        )

    @property
    def root(self) -> mctx.RootFnOutput:
        state = jnp.zeros(self.problems, jnp.int32)
        return mctx.RootFnOutput(
            prior_logits=self.prior_logits[:, 0], value=self.values[:, 0], embedding=state
        )

    def recurrent(
        self, params: Any, key: jax.Array, move: jax.Array, state: jax.Array
    ) -> tuple[mctx.RecurrentFnOutput, jax.Array]:
        """`mctx.RecurrentFn`."""
        del params, key
        problem = jnp.arange(self.problems)
        reached = self.child(state, move)
        output = mctx.RecurrentFnOutput(
            reward=jnp.zeros(self.problems),
            discount=jnp.ones(self.problems),
            prior_logits=self.prior_logits[problem, reached],
            value=self.values[problem, reached],
        )
        return output, reached
