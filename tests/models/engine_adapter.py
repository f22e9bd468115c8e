"""Runs prompts through the engine and keeps what the parity tests compare."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax import engine
from dendrite_jax.cache import Cache, CacheConfig, raise_errors
from dendrite_jax.models.config import ModelConfig
from dendrite_jax.models.decoder import Decoder

# Every case is a compilation of its own, which then runs once: LLVM's slow passes do not pay.
_COMPILER_OPTIONS = {"xla_llvm_disable_expensive_passes": True}


class Run(NamedTuple):
    """Logits in float32 and greedy tokens of every prompt."""

    prompt_logits: list[np.ndarray]  # [length, vocab], after each token of the prompt
    decode_logits: np.ndarray  # [prompts, steps, vocab], after each greedy token but the last
    greedy: np.ndarray  # i32[prompts, steps + 1], the first from the prefill


def run_prefill_and_decode(
    config: ModelConfig,
    params: dict[str, Any],
    prompts: list[np.ndarray],
    steps: int,
    block_size: int = 16,
    chunk: int | None = None,
) -> Run:
    """Prefills all prompts in one padded call, then decodes greedily in lockstep.

    Args:
      config: the model's configuration.
      params: its parameters.
      prompts: i32[length] each.
      steps: decode steps after the prefill.
      block_size: tokens a block of the cache.
      chunk: prefill so many tokens at a time; `prompt_logits` are then of the last token only.
    """
    count = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens = np.zeros((len(prompts), count.max()), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    cache, prompt_logits, decode_logits, greedy = _run(
        Decoder(params, config), tokens, count, steps, block_size, chunk
    )
    raise_errors(cache)
    values = np.asarray(prompt_logits)
    return Run(
        [values[row, : len(prompt)] for row, prompt in enumerate(prompts)],
        np.moveaxis(np.asarray(decode_logits), 0, 1),
        np.asarray(greedy).T,
    )


@jax.jit(static_argnames=("steps", "block_size", "chunk"), compiler_options=_COMPILER_OPTIONS)
def _run(
    model: Decoder,
    tokens: jax.Array,
    count: jax.Array,
    steps: int,
    block_size: int,
    chunk: int | None,
) -> tuple[Cache, jax.Array, jax.Array, jax.Array]:
    """The cache, logits [lanes, length | 1, vocab] and [steps, lanes, vocab], greedy tokens."""
    lanes, length = tokens.shape
    blocks_per_lane = -(-(length + steps) // block_size)
    config = CacheConfig(blocks_per_lane * lanes, lanes, length + steps, block_size)
    keys = jax.random.split(jax.random.key(0), lanes)
    state, ids = engine.open_branches(engine.init(model, config), keys)
    if chunk is None:
        state, prompt_logits, _ = engine.score_tokens(model, state, ids, tokens, count)
        last = jnp.take_along_axis(prompt_logits, (count - 1)[:, None, None], axis=1)[:, 0]
    else:
        state, stepped = engine.prefill(model, state, ids, tokens, count, chunk=chunk)
        last = stepped.logits
        prompt_logits = last[:, None]

    def body(carry: tuple[engine.State, jax.Array], _: None) -> tuple[Any, Any]:
        state, token = carry
        state, stepped = engine.step(model, state, ids, token)
        token = jnp.argmax(stepped.logits, axis=-1).astype(jnp.int32)
        return (state, token), (stepped.logits, token)

    first = jnp.argmax(last, axis=-1).astype(jnp.int32)
    (state, _), (decode_logits, decoded) = jax.lax.scan(body, (state, first), None, length=steps)
    return state.cache, prompt_logits, decode_logits, jnp.concatenate([first[None], decoded])
