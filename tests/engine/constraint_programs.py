"""Grammars, a random model over their vocabulary and compiled functions that tests share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from llguidance import LLMatcher

from dendrite_jax import engine
from dendrite_jax import grammar as gr
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import GenerateConfig, Generated, Sampling, State
from dendrite_jax.testing import BigramModel
from engine.programs import open_branches, pad, start
from grammar.oracle import mask_of, matcher
from grammar.vocabularies import byte_level

TOKENS = byte_level().token_bytes
END = byte_level().eos_ids[0]
CACHE = CacheConfig(num_blocks=160, num_slots=40, max_context=48, block_size=4, debug=True)
NEW_TOKENS = 24
CONFIG = GenerateConfig(NEW_TOKENS)
SAMPLING = Sampling(temperature=1.5)

_HEADER = '%llguidance {"no_forcing": true}\n'
ARITHMETIC = r"""
start: expr
expr: term (("+"|"-") term)*
term: factor (("*"|"/") factor)*
factor: NUM | "(" expr ")"
NUM: /[0-9]{1,3}(\.[0-9]{1,2})?/
"""
REGEXES = [r'"name": (true|false)', "(ab|abc)+", r"[0-9]{1,3}(\.[0-9]+)?"]

generate = jax.jit(engine.generate, static_argnames="config", donate_argnums=1)
constrain = jax.jit(engine.constrain, donate_argnums=0)
_raw_noise = jax.jit(
    lambda key, position: jax.random.gumbel(
        jax.random.fold_in(jax.random.wrap_key_data(key), position), (len(TOKENS),)
    )
)


@cache
def compiler() -> gr.GrammarCompiler:
    return gr.GrammarCompiler(byte_level(), use_cache=False)


@cache
def regex(pattern: str) -> gr.CompiledGrammar:
    return compiler().compile(gr.Grammar.from_regex(pattern))


@cache
def stacked() -> gr.CompiledGrammar:
    return gr.stack([regex(pattern) for pattern in REGEXES])


@cache
def model() -> BigramModel:
    """Random logits; ends of text and of brackets are likely, so that texts end."""
    rng = np.random.default_rng(0)
    table = 2 * rng.normal(size=(len(TOKENS), len(TOKENS)))
    likely = [data in (b"]", b"}", b")", b'"', b"+", None) for data in TOKENS]
    return BigramModel(jnp.asarray(table + 3 * np.array(likely), jnp.float32))


def prompt(text: str) -> list[int]:
    return [TOKENS.index(bytes([byte])) for byte in text.encode()]


def regex_root(pattern: str) -> LLMatcher:
    return matcher(_HEADER + f"start: /{pattern}/")


def lark_root(text: str) -> LLMatcher:
    return matcher(_HEADER + text)


def opened(texts: Sequence[str], seed: int = 0) -> tuple[State, np.ndarray]:
    """A state with a branch for each text, up to LANES."""
    return start(model(), [prompt(text) for text in texts], seed, CACHE)


def open_one(state: State) -> tuple[State, np.ndarray]:
    """Opens one more branch."""
    state, ids = open_branches(state, jax.random.split(jax.random.key(9), 1))
    return state, np.asarray(ids)


def run(state: State, ids: Sequence[int] | np.ndarray, **rest: Any) -> tuple[State, Generated]:
    """Generates on up to LANES branches; the new tokens on the host."""
    state, out = generate(model(), state, pad(ids), CONFIG, SAMPLING, **rest)
    return state, jax.device_get(out)


def oracle(
    root: LLMatcher | None, last: int, key: np.ndarray, position: int, limit: int = NEW_TOKENS
) -> tuple[list[int], list[float], str]:
    """What a branch draws when llguidance is asked for the mask before each token.

    Args:
      root: the matcher at the start of the text; None for a branch without a grammar.
      last: the last token that the branch holds.
      key: the branch's random key.
      position: where its next token stands.

    Returns:
      The tokens, their log-probabilities under the masked and tempered model, why they end.
    """
    table = np.asarray(model().table)
    here = root.deep_copy() if root is not None else None
    tokens: list[int] = []
    logprobs: list[float] = []
    while len(tokens) < limit:
        row = table[last].astype(np.float64) / 1.5
        if here is not None:
            row = np.where(mask_of(here), row, -np.inf)
        noise = np.asarray(_raw_noise(key, position), np.float64)
        last = int(np.argmax(row + noise))
        logprobs.append(row[last] - np.log(np.sum(np.exp(row - row.max()))) - row.max())
        tokens.append(last)
        position += 1
        if here is not None:
            if last == END:
                return tokens, logprobs, "stop_token"
            assert here.consume_token(last)
    return tokens, logprobs, "length"


def lanes_of(out: Generated) -> list[list[int]]:
    return [row[:n].tolist() for row, n in zip(out.tokens, out.length.tolist(), strict=True)]


def text_of(tokens: Sequence[int]) -> bytes:
    return b"".join(TOKENS[token] or b"" for token in tokens if token >= 0)
