"""Recording thoughts in the tree of a search."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search.score.scored import Scored
from dendrite_jax.search.thoughts import Thoughts
from dendrite_jax.search.tree import NO_NODE, SearchTree


def thought_fields(
    thoughts: Thoughts, scored: Scored, shape: tuple[int, ...], thought_tokens: int
) -> dict[str, Array]:
    """The fields of `SearchTree` that thoughts bring with them, of a shape [problems, …, n].

    A lane without a branch leaves its row as an unused one is.
    """
    made = thoughts.branch >= 0
    padding = ((0, 0), (0, thought_tokens - thoughts.tokens.shape[1]))
    tokens = jnp.pad(thoughts.tokens, padding, constant_values=NO_TOKEN)
    rows = {
        "parent": jnp.where(made, thoughts.parent, NO_NODE),
        "tokens": jnp.where(made[:, None], tokens, NO_TOKEN),
        "raw_logprob": jnp.where(made, thoughts.raw_logprob, 0.0),
        "logprob": jnp.where(made, thoughts.logprob, 0.0),
        "merge_key": jnp.where(made, scored.merge_key, 0),
    }
    return {name: row.reshape(*shape, *row.shape[1:]) for name, row in rows.items()}


def record_thoughts(
    tree: SearchTree,
    first: Array,
    depth: Array,
    thoughts: Thoughts,
    scored: Scored,
    value: Array,
    ends: Array,
    outcome: Array,
) -> SearchTree:
    """Writes thoughts at the nodes from `first` on.

    Args:
      tree: of every problem.
      first: i32[], the same for all problems.
      depth: i32[], or i32[problems, 1].
      thoughts: problems × n of them.
      scored: their judgement.
      value: f32[problems, n], the scorer's, −inf where it is of no use.
      ends: bool[problems, n], the thought ends its path.
      outcome: i32[problems, n], what became of each.
    """
    shape = value.shape
    made = (thoughts.branch >= 0).reshape(shape)
    return tree.write(
        first,
        **thought_fields(thoughts, scored, shape, tree.tokens.shape[2]),
        depth=jnp.where(made, depth, 0),
        value=value,
        visits=made.astype(jnp.int32),
        terminal=made & ends,
        outcome=outcome,
    )
