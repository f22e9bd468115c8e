"""What a grammar costs a step of `engine.generate`, where logits cost next to nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from dendrite_jax import engine
from dendrite_jax.benchmarks.harness.counts import check_counts
from dendrite_jax.cache import Appended, CacheConfig, KVPool, KVShape, uniform_shape
from dendrite_jax.engine import GenerateConfig, State
from dendrite_jax.grammar import (
    CompiledGrammar,
    Grammar,
    GrammarCompiler,
    stack,
)
from dendrite_jax.kernels.blocks import BLOCK_SIZE
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy
from dendrite_jax.serving.compilation import loop_options

DECODE_STEP_US = 5450.0
"""A decode step of one branch at the Llama-3-8B shape on an H100 (`decode_h100.json`)."""
LENGTHS = {"cpu": (2, 8)}
"""Tokens of the two generations whose times are subtracted; a CPU samples for long."""
OTHER_LENGTHS = (16, 144)
MAX_CONTEXT = 160
REPEATS = 3
ENDLESS = r'("[^"\\\x00-\x1f]{1,40}", ?)*'
"""Strings without end: no branch finishes before its length."""
FAST_FORWARD = 8


class CheapModel(struct.PyTreeNode):
    """Logits of the last token through a bottleneck of a few numbers; no keys, no values."""

    embed: jax.Array  # f32[vocab, width]
    bias: jax.Array  # f32[vocab]

    @classmethod
    def random(cls, vocab_size: int, rare: tuple[int, ...] = (), width: int = 16) -> CheapModel:
        """Random weights; the `rare` tokens are only taken where nothing else is allowed."""
        rng = np.random.default_rng(0)
        bias = np.zeros(vocab_size, np.float32)
        bias[list(rare)] = -100
        embed = rng.normal(size=(vocab_size, width))
        return cls(jnp.asarray(embed, jnp.float32), jnp.asarray(bias))

    @property
    def dtype(self) -> jnp.dtype:
        return self.embed.dtype

    @property
    def vocab_size(self) -> int:
        return self.embed.shape[0]

    @property
    def hidden_size(self) -> int:
        return self.embed.shape[1]

    @property
    def kv_shape(self) -> KVShape:
        return uniform_shape(num_layers=1, num_kv_heads=1, head_dim=1)

    @property
    def max_position(self) -> None:
        return None  # as much context as there is room for

    @property
    def policy(self) -> KernelPolicy:
        return DEFAULT_POLICY

    def forward(
        self, pool: KVPool, appended: Appended, tokens: jax.Array
    ) -> tuple[KVPool, jax.Array]:
        return pool, self.embed[tokens]

    def unembed(self, hidden: jax.Array) -> jax.Array:
        return hidden @ self.embed.T + self.bias


def step_cost(compiler: GrammarCompiler, grammar: Grammar, lanes: int) -> dict[str, float | None]:
    """Microseconds of a step with and without a table that holds `grammar` and an endless one."""
    model = CheapModel.random(compiler.vocab_size, rare=compiler.eos_ids)
    table = stack([compiler.compile(grammar), compiler.compile(Grammar.from_regex(ENDLESS))])
    state, ids = _opened(model, lanes)
    constrained = jax.jit(engine.constrain)(state, ids, table, 1)
    without, with_grammar = _step_us(model, [state, constrained], ids)
    cost = with_grammar - without
    on_gpu = jax.default_backend() == "gpu"  # the large model's step is one of a GPU
    return {
        "step_us": without,
        "constrained_step_us": with_grammar,
        "constraint_us": cost,
        "overhead_percent_of_sampling": 100 * cost / without,
        "overhead_percent_of_8b_decode": 100 * cost / DECODE_STEP_US if on_gpu else None,
    }


def tokens_per_step(compiler: GrammarCompiler, table: CompiledGrammar, texts: int) -> float:
    """Tokens that a step gives one branch with fast-forward, over several texts; 1 without it."""
    model = CheapModel.random(compiler.vocab_size)
    config = GenerateConfig(MAX_CONTEXT - 1, fast_forward=FAST_FORWARD)
    generate = jax.jit(engine.generate, static_argnames="config", compiler_options=loop_options())
    tokens = steps = 0
    for seed in range(texts):
        state, ids = _opened(model, 1, seed)
        before = state.cache.ledger.totals()["steps"]
        state, out = generate(model, engine.constrain(state, ids, table), ids, config)
        tokens += int(out.length[0])
        steps += state.cache.ledger.totals()["steps"] - before
    return tokens / steps


@partial(jax.jit, static_argnums=1)
def _opened(model: CheapModel, lanes: int, seed: jax.Array | int = 0) -> tuple[State, jax.Array]:
    """A state with a one-token branch for each lane."""
    state = engine.init(model, CacheConfig(lanes * MAX_CONTEXT // BLOCK_SIZE, lanes, MAX_CONTEXT))
    state, ids = engine.open_branches(state, jax.random.split(jax.random.key(seed), lanes))
    tokens, count = jnp.zeros((lanes, 1), jnp.int32), jnp.ones(lanes, jnp.int32)
    state, _ = engine.prefill(model, state, ids, tokens, count)
    return state, ids


def _step_us(model: CheapModel, states: Sequence[State], ids: jax.Array) -> list[float]:
    """Microseconds of a step from each state, inside the loop of one call, off the host.

    The states take turns. On a CPU it is processor time, of all cores together, so that other work
    on the machine does not count.
    """
    cpu = jax.default_backend() == "cpu"
    clock = time.process_time if cpu else time.perf_counter
    generate = jax.jit(engine.generate, static_argnames="config", compiler_options=loop_options())

    def seconds(state: State, tokens: int) -> float:
        before = state.cache.ledger.totals()
        start = clock()
        with jax.transfer_guard("disallow"):
            after, out = generate(model, state, ids, GenerateConfig(tokens))
        jax.block_until_ready(out)
        taken = clock() - start
        check_counts(before, after.cache, steps=tokens, generated=tokens * len(ids))
        return taken

    lengths = LENGTHS.get(jax.default_backend(), OTHER_LENGTHS)
    samples = [
        [[seconds(state, tokens) for tokens in lengths] for state in states]
        for _ in range(1 + REPEATS)
    ]
    short, long = np.median(np.array(samples[1:]), axis=0).T  # the first compiles
    return (1e6 * (long - short) / (lengths[1] - lengths[0])).tolist()
