"""What a decoding loop does with a compiled grammar: pure functions that trace, map and fork.

`state` is i32 of any shape; a fork copies it and that is all. None of these functions leaves the
device.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from dendrite_jax.grammar.table.compiled import (
    DEAD_STATE,
    DONE_STATE,
    EOS_CLASS,
    FREE_STATE,
    NO_TOKEN,
    CompiledGrammar,
)
from dendrite_jax.grammar.table.lazy_table import NO_EDGE, LazyTable, find_edge

NO_GRAMMAR = -1

AnyGrammar = CompiledGrammar | LazyTable


def initial_state(grammar: AnyGrammar, grammar_index: jax.Array | int = 0) -> jax.Array:
    """The first state of the given grammars of a stack; NO_GRAMMAR gives an unconstrained state.

    Args:
        grammar_index: i32[...] in [0, grammars), or NO_GRAMMAR; others give a dead state.

    Returns:
        i32[...].
    """
    index = jnp.asarray(grammar_index, jnp.int32)
    known = (index >= 0) & (index < len(grammar.start))
    first = jnp.where(known, grammar.start[jnp.maximum(index, 0)], DEAD_STATE)
    return jnp.where(index == NO_GRAMMAR, FREE_STATE, first)


def allowed_tokens(grammar: AnyGrammar, state: jax.Array) -> jax.Array:
    """bool[..., vocabulary]: what may come next; end of sequence only, where finished or dead."""
    words = grammar.token_bitmask[grammar.mask_id[state]]
    bits = (words[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & jnp.uint32(1)
    return bits.reshape(*words.shape[:-1], -1)[..., : grammar.vocab_size] != 0


def apply_token_bitmask(logits: jax.Array, grammar: AnyGrammar, state: jax.Array) -> jax.Array:
    """The logits with −inf for tokens that the grammar does not allow.

    Args:
        logits: floating[..., vocabulary].
        state: i32[...].

    Returns:
        f32[..., vocabulary], whatever the dtype of `logits`.

    Raises:
        ValueError: the last axis of `logits` is not the grammar's vocabulary.
    """
    if logits.shape[-1] != grammar.vocab_size:
        raise ValueError(
            f"logits have {logits.shape[-1]} tokens, the grammar's vocab_size is "
            f"{grammar.vocab_size}"
        )
    allowed = allowed_tokens(grammar, state)
    return jnp.where(allowed, logits.astype(jnp.float32), -jnp.inf)


def accept_token(grammar: CompiledGrammar, state: jax.Array, token: jax.Array) -> jax.Array:
    """The state after `token`; a token that is not allowed gives a dead state.

    Args:
        state: i32[...].
        token: i32[...]; NO_TOKEN leaves the state as it is.

    Returns:
        i32[...].
    """
    token_class = grammar.token_class[grammar.grammar_id[state], jnp.maximum(token, 0)]
    return jnp.where(token == NO_TOKEN, state, grammar.next_state[state, token_class])


def try_accept_token(
    grammar: AnyGrammar, state: jax.Array, token: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`accept_token` for tables that are not complete.

    A loop that meets a miss stops, keeps the token, lets `LazyGrammar.expand` add the edge, and
    calls this again when it goes on.

    Args:
        state: i32[...].
        token: i32[...]; NO_TOKEN leaves the state as it is.

    Returns:
        state: i32[...], unchanged where the next state is not known.
        miss: bool[...], where that is so; never for a `CompiledGrammar`.
    """
    if isinstance(grammar, CompiledGrammar):
        after = accept_token(grammar, state, token)
        return after, jnp.zeros(after.shape, bool)
    state, token = jnp.broadcast_arrays(state, token)
    word = grammar.token_bitmask[grammar.mask_id[state], jnp.maximum(token, 0) // 32]
    allowed = (word >> (token % 32).astype(jnp.uint32)) & jnp.uint32(1) != 0
    is_eos = jnp.any(token[..., None] == grammar.eos_ids, axis=-1)
    # DEAD and DONE allow only end of sequence, which leaves them as they are.
    final = jnp.where(state == DEAD_STATE, DEAD_STATE, DONE_STATE)
    known = find_edge(grammar, state, token)
    after = jnp.where(is_eos, final, known)
    after = jnp.where(allowed, after, DEAD_STATE)
    after = jnp.where((token == NO_TOKEN) | (state == FREE_STATE), state, after)
    miss = after == NO_EDGE
    return jnp.where(miss, state, after), miss


def is_terminated(state: jax.Array) -> jax.Array:
    """bool[...]: the text is complete, an end-of-sequence token was accepted."""
    return state == DONE_STATE


def is_dead(state: jax.Array) -> jax.Array:
    """bool[...]: the branch left its grammar and can never finish."""
    return state == DEAD_STATE


def can_terminate(grammar: CompiledGrammar, state: jax.Array) -> jax.Array:
    """bool[...]: the text so far is in the language, so that end of sequence is allowed."""
    return (grammar.next_state[state, EOS_CLASS] == DONE_STATE) | (state == FREE_STATE)


def forced_tokens(
    grammar: CompiledGrammar, state: jax.Array, limit: int
) -> tuple[jax.Array, jax.Array]:
    """The tokens that follow because nothing else is allowed, for one prefill-like step.

    End of sequence is never among them: it is left to the step that samples.

    Args:
        state: i32[...].
        limit: the most tokens to return (static).

    Returns:
        tokens: i32[..., limit], NO_TOKEN from where the next token is a choice.
        state: i32[...], the state after them.
    """

    def advance(state: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        token = grammar.forced_token[state]
        after = accept_token(grammar, state, token)
        # A dead state allows end of sequence only, and stays dead.
        token = jnp.where(is_terminated(after) | is_dead(after), NO_TOKEN, token)
        return accept_token(grammar, state, token), token

    state, tokens = jax.lax.scan(advance, state, None, length=limit)
    return jnp.moveaxis(tokens, 0, -1), state
