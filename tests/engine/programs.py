"""The engine's functions compiled once, and models and states small enough to share.

Every test calls with LANES lanes and prompts padded to PROMPT tokens, so that one compilation of a
function serves all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import Model, State, Stepped
from dendrite_jax.models import Decoder
from dendrite_jax.models.families import param_layout, read_config
from dendrite_jax.models.families.layout import build_params
from dendrite_jax.testing import BigramModel
from models.tiny_models import CASES, tiny_weights, uniform

LANES = 4
PROMPT = 16
CACHE = CacheConfig(num_blocks=40, num_slots=12, max_context=40, block_size=4, debug=True)
VOCAB = 11
"""Of the bigram model."""
DECODER_CASE, DECODER_SEED = "llama31_rope", 0
DECODER_TOLERANCE = 768 * 2**-24
"""Of the largest logit. A logit of the tiny decoder hangs on a chain of float32 sums of, in each of
two layers, 64 + 64 + 40 + 64 + 64 + 96 terms, and 64 at the end, each rounded by 2⁻²⁴ of its size
at most: two orders of summation differ by less than the length of the chain times that."""

init = jax.jit(engine.init, static_argnames="config")
open_branches = jax.jit(engine.open_branches, donate_argnums=0)
prefill = jax.jit(engine.prefill, static_argnames="chunk", donate_argnums=1)
_step = jax.jit(engine.step, donate_argnums=1)
fork = jax.jit(engine.fork, donate_argnums=0)
truncate = jax.jit(engine.truncate, donate_argnums=0)
rewind = jax.jit(engine.rewind, donate_argnums=1)
free = jax.jit(engine.free, donate_argnums=0)
generate = jax.jit(engine.generate, static_argnames="config", donate_argnums=1)
next_logits = jax.jit(engine.next_logits)
branch_tokens = jax.jit(engine.branch_tokens)
set_keys = jax.jit(engine.set_keys)


@cache
def bigram() -> BigramModel:
    """A bigram model whose next tokens have about three bits of entropy."""
    return BigramModel(jnp.asarray(2 * uniform(0, "bigram", (VOCAB, VOCAB))))


@cache
def tiny_decoder(seed: int = DECODER_SEED) -> Decoder:
    """A random Llama of two layers, width 64, 8 heads on 2 key/value heads, 128 tokens."""
    fields = CASES[DECODER_CASE]
    config, weights = read_config(fields), tiny_weights(fields, seed)

    arrays = [
        (param, jnp.concatenate([weights[part.name] for part in param.parts]))
        for param in param_layout(config)
    ]
    return Decoder(build_params(config, arrays), config)


def pad(values: Iterable[int], fill: int = -1, width: int = LANES) -> np.ndarray:
    """i32[width], the values and then the fill."""
    given = list(values)
    return np.array(given + [fill] * (width - len(given)), np.int32)


def keys(seed: int = 0) -> jax.Array:
    """A random key for each lane."""
    return jax.random.split(jax.random.key(seed), LANES)


def start(
    model: Model, prompts: Sequence[Sequence[int]], seed: int = 0, config: CacheConfig = CACHE
) -> tuple[State, np.ndarray]:
    """A fresh state with LANES branches; the first of them hold the prompts."""
    state, ids = open_branches(init(model, config), keys(seed))
    state, stepped = run_prefill(model, state, ids, prompts)
    assert all(stepped.ok[lane] for lane, prompt in enumerate(prompts) if prompt)
    return state, np.asarray(ids)


def run_prefill(
    model: Model,
    state: State,
    ids: Iterable[int],
    prompts: Sequence[Sequence[int]],
    chunk: int = PROMPT,
) -> tuple[State, Stepped]:
    """Prefills up to LANES branches; what a step leaves, on the host."""
    rows = [*prompts, *[[]] * (LANES - len(prompts))]
    tokens = np.stack([pad(row, 0, PROMPT) for row in rows])
    count = pad([len(row) for row in rows])
    state, stepped = prefill(model, state, pad(ids), tokens, count, chunk=chunk)
    return state, jax.device_get(stepped)


def step(
    model: Model, state: State, ids: Iterable[int], tokens: Iterable[int]
) -> tuple[State, Stepped]:
    """Appends a token to up to LANES branches; what a step leaves, on the host."""
    state, stepped = _step(model, state, pad(ids), pad(tokens))
    return state, jax.device_get(stepped)
