"""Generation with a bigram model in plain Python, replaying the engine's random draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from engine.programs import CACHE, VOCAB, bigram
from engine.sampling_oracle import Knobs, log_softmax, process

TABLE = np.asarray(bigram().table)
TOKEN_BYTES = [b"a", b"b", b"ab", b"c", b"\n", None, b"bc", b"d", b"ea", b"f", b"g"]


@dataclass(frozen=True)
class Stops:
    """What ends a lane: two token ids (−1 for none) and a string of three letters."""

    tokens: tuple[int, int] = (-1, -1)
    string: str = "xyz"


@dataclass
class Grown:
    """What a lane generated."""

    tokens: list[int]
    raw_logprobs: list[float]
    logprobs: list[float]
    finish: str


def grow(
    held: Sequence[int], key: np.ndarray, limit: int, knobs: Knobs, stops: Stops
) -> Grown | None:
    """Up to `limit` tokens after those held; None where float32 could decide otherwise."""
    noise = np.asarray(_noise(key), np.float64)
    context, text = list(held), b""
    grown = Grown([], [], [], "length")
    while len(grown.tokens) < limit:
        raw = TABLE[context[-1]]
        processed = process(raw, knobs, set(context))
        noisy = processed.logits + (noise[len(context)] if knobs.temperature > 0 else 0)
        token = int(np.argmax(noisy))
        runner_up = np.max(np.delete(noisy, token))
        if processed.margin < 1e-5 or noisy[token] - runner_up < 1e-4:
            return None
        context.append(token)
        grown.tokens.append(token)
        grown.raw_logprobs.append(log_softmax(raw)[token])
        grown.logprobs.append(log_softmax(processed.logits)[token])
        piece = TOKEN_BYTES[token]
        text = b"" if piece is None else text + piece
        if token in stops.tokens:
            grown.finish = "stop_token"
            break
        if stops.string.encode() in text:
            grown.finish = "stop_string"
            break
    return grown


@jax.jit
def _noise(key: jax.Array) -> jax.Array:
    """f32[context, vocab], the noise of a branch's draw at each position."""
    draw = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    keys = draw(jax.random.wrap_key_data(key), np.arange(CACHE.max_context))
    return jax.vmap(lambda key: jax.random.gumbel(key, (VOCAB,)))(keys)
