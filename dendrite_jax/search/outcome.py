"""What became of a node: why a thought is no candidate, and a search without an answer has none."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import stopping
from dendrite_jax.engine.stopping import LENGTH
from dendrite_jax.search.score.scored import Scored
from dendrite_jax.search.thoughts import Thoughts

# Codes of `SearchTree.outcome`, indices of OUTCOME_NAMES.
UNUSED = 0
COMPLETE = 1
NO_STOP = 2
NO_ROOM = 3
OFF_GRAMMAR = 4
REJECTED = 5
NOT_A_NUMBER = 6
UNSCORED = 7
MERGED = 8
HOPELESS = 9
EMPTY_PROMPT = 10
NO_ROOT = 11
STALE_ROOT = 12
BAD_PROMPT = 13
BAD_LOGITS = 14
OUTCOME_NAMES = (
    "unused",  # no thought stands in this row of the tree
    "complete",  # a candidate; of a root: it could be searched from
    "no_stop",  # reached its length without meeting a stop rule
    "no_room",  # ran out of blocks, slots or context
    "off_grammar",  # its grammar allowed no further token before a stop rule was met
    "rejected",  # the scorer gave −inf
    "not_a_number",  # the scorer gave NaN or +inf
    "unscored",  # the scorer's own model had no room for it
    "merged",  # a better or earlier thought has its merge key
    "hopeless",  # below the threshold of a search that backtracks
    "empty_prompt",  # of a root: its branch holds no token
    "no_root",  # of a root: its id names no branch
    "stale_root",  # of a root: it was cut, and does not know what follows
    "bad_prompt",  # of a root: a token outside the vocabulary, or logits that are no numbers
    "bad_logits",  # the model gave logits that are NaN or infinite
)


def outcome_of(thoughts: Thoughts, scored: Scored) -> Array:
    """Codes i32[lanes] of thoughts just judged; UNUSED where there is no branch."""
    # Why it ended, if not as it should; an `expand` that does not tell ends by length or grammar.
    finish = jnp.broadcast_to(thoughts.finish, thoughts.length.shape)
    whole = (finish == LENGTH) | (thoughts.length == thoughts.tokens.shape[1])
    unended = jnp.where(whole, NO_STOP, OFF_GRAMMAR)
    unended = jnp.where(finish == stopping.BAD_LOGITS, BAD_LOGITS, unended)
    value = scored.value
    judged = jnp.where(jnp.isneginf(value), REJECTED, COMPLETE)
    judged = jnp.where(jnp.isnan(value) | jnp.isposinf(value), NOT_A_NUMBER, judged)
    judged = jnp.where(scored.short, UNSCORED, judged)
    code = jnp.where(thoughts.complete, judged, unended)
    code = jnp.where(thoughts.failed, NO_ROOM, code)
    return jnp.where(thoughts.branch >= 0, code, UNUSED).astype(jnp.int32)


def set_aside(outcome: Array, before: Array, after: Array, code: int) -> Array:
    """Gives a code to what had a value [...] before and has −inf after."""
    return jnp.where(~jnp.isneginf(before) & jnp.isneginf(after), code, outcome)
