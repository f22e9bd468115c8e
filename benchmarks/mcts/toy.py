"""A deterministic environment for tree search, as our core and as mctx take it."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import mctx
import numpy as np
from flax import struct

from dendrite_jax.search import NO_NODE
from dendrite_jax.search.monte_carlo import Gumbel, Puct, Rule, Uct
from dendrite_jax.search.monte_carlo.children import Children
from dendrite_jax.search.monte_carlo.config import SimulationConfig
from dendrite_jax.search.monte_carlo.simulation import Simulations, begin, run
from dendrite_jax.search.monte_carlo.tree import MctsTree

NUM_STATES = 997


class Toy(struct.PyTreeNode):
    """Random priors and values of the states of each problem; a move leads to another state."""

    prior_logits: jax.Array  # f32[problems, NUM_STATES, num_children]
    values: jax.Array  # f32[problems, NUM_STATES], uniform in [0, 1]

    @classmethod
    def random(cls, problems: int, num_children: int, seed: int = 0) -> Toy:
        """No two problems are alike."""
        generator = np.random.default_rng(seed)
        logits = generator.normal(size=(problems, NUM_STATES, num_children))
        values = generator.uniform(size=(problems, NUM_STATES))
        return cls(jnp.asarray(logits, jnp.float32), jnp.asarray(values, jnp.float32))

    @property
    def problems(self) -> jax.Array:
        return jnp.arange(self.values.shape[0])

    def reached(self, state: jax.Array, move: jax.Array) -> jax.Array:
        """The state after a move, both i32[...]."""
        return (state * self.prior_logits.shape[2] + move + 1) % NUM_STATES

    def search(self, keys: jax.Array, config: SimulationConfig) -> Simulations:
        """Our core from state 0 of every problem."""
        problems = self.values.shape[0]
        tree = MctsTree.of_roots(
            problems, config.num_nodes, config.num_children, root_worth=self.values[:, 0]
        )
        states = jnp.zeros((problems, config.num_nodes), jnp.int32)
        return run(self.expand, states, begin(tree, keys, config), config)[1]

    def expand(
        self, states: jax.Array, tree: MctsTree, nodes: jax.Array, first_child: jax.Array
    ) -> tuple[jax.Array, Children]:
        """`simulation.MakeChildren`; carries the states i32[problems, nodes] of the nodes."""
        del tree
        problem = self.problems[:, None]
        state = states[problem, jnp.maximum(nodes, 0)]
        moves = jnp.arange(self.prior_logits.shape[2])
        reached = self.reached(state[..., None], moves)
        rows = first_child[..., None] + moves
        rows = jnp.where((nodes == NO_NODE)[..., None], states.shape[1], rows)
        states = states.at[problem[..., None], rows].set(reached, mode="drop")
        return states, Children(
            prior_logits=self.prior_logits[problem, state],
            made=jnp.ones(reached.shape, bool),
            worth=self.values[problem[..., None], reached],
            terminal=jnp.zeros(reached.shape, bool),
            out_of_room=jnp.zeros(nodes.shape, bool),
        )

    def mctx_search(self, key: jax.Array, num_simulations: int, rule: Rule) -> Any:
        """The `mctx.Tree` of the same search by mctx."""
        root = mctx.RootFnOutput(
            prior_logits=self.prior_logits[:, 0],
            value=self.values[:, 0],
            embedding=jnp.zeros_like(self.problems),
        )
        given = (None, key, root, self._recurrent, num_simulations)
        if isinstance(rule, Puct):
            return mctx.muzero_policy(
                *given,
                dirichlet_fraction=rule.dirichlet_fraction,
                dirichlet_alpha=rule.dirichlet_alpha,
                pb_c_init=rule.c_init,
                pb_c_base=rule.c_base,
            ).search_tree
        if isinstance(rule, Gumbel):
            return mctx.gumbel_muzero_policy(
                *given, max_num_considered_actions=rule.max_considered, gumbel_scale=rule.scale
            ).search_tree
        assert isinstance(rule, Uct)
        return mctx.search(
            None,
            key,
            root=root,
            recurrent_fn=self._recurrent,
            root_action_selection_fn=partial(_uct, depth=0, c=rule.c),
            interior_action_selection_fn=partial(_uct, c=rule.c),
            num_simulations=num_simulations,
        )

    def _recurrent(
        self, params: None, key: jax.Array, move: jax.Array, state: jax.Array
    ) -> tuple[mctx.RecurrentFnOutput, jax.Array]:
        del params, key
        reached = self.reached(state, move)
        output = mctx.RecurrentFnOutput(
            reward=jnp.zeros_like(self.values[:, 0]),
            discount=jnp.ones_like(self.values[:, 0]),
            prior_logits=self.prior_logits[self.problems, reached],
            value=self.values[self.problems, reached],
        )
        return output, reached


def _uct(key: jax.Array, tree: Any, node: jax.Array, depth: Any, c: float) -> jax.Array:
    """UCT as an action selection of mctx; unvisited children first, by their priors."""
    del key, depth
    visits = tree.children_visits[node]
    spread = jnp.sqrt(jnp.log(tree.node_visits[node]) / jnp.maximum(visits, 1))
    fresh = jnp.where(visits == 0, tree.children_prior_logits[node], -jnp.inf)
    known = tree.children_values[node] + c * spread
    return jnp.argmax(jnp.where(jnp.any(visits == 0), fresh, known))
