"""Recording thoughts in the tree of a search."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search.expand import Thoughts
from dendrite_jax.search.scoring import Scored
from dendrite_jax.search.tree import NO_NODE, SearchTree


def record_thoughts(
    tree: SearchTree,
    first: Array,
    depth: Array,
    thoughts: Thoughts,
    scored: Scored,
    value: Array,
    ends: Array,
) -> tuple[SearchTree, Array]:
    """Writes thoughts at the nodes from `first` on.

    Args:
      tree: of every problem.
      first: i32[], the same for all problems.
      depth: i32[], or i32[problems, 1].
      thoughts: problems × n of them.
      scored: their judgement.
      value: f32[problems, n], the scorer's, −inf where it is of no use.
      ends: bool[problems, n], the thought ends its path.

    Returns:
      The tree, and the nodes i32[problems, n]; a lane without a branch leaves its node unused.
    """
    shape = value.shape
    made = (thoughts.branch >= 0).reshape(shape)
    padding = ((0, 0), (0, tree.tokens.shape[2] - thoughts.tokens.shape[1]))
    tokens = jnp.pad(thoughts.tokens, padding, constant_values=NO_TOKEN)
    tree = tree.write(
        first,
        parent=jnp.where(made, thoughts.parent.reshape(shape), NO_NODE),
        depth=jnp.where(made, depth, 0),
        tokens=tokens.reshape(*shape, -1),
        raw_logprob=thoughts.raw_logprob.reshape(shape),
        logprob=thoughts.logprob.reshape(shape),
        value=value,
        merge_key=jnp.where(made, scored.merge_key.reshape(shape), 0),
        visits=made.astype(jnp.int32),
        terminal=made & ends,
    )
    return tree, first + jnp.broadcast_to(jnp.arange(shape[1]), shape)
