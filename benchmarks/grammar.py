"""What a grammar costs: compile time, and time per step against llguidance per branch."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import llguidance
import llguidance.numpy
import numpy as np

from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.grammar_cases import (
    VOCAB_SIZE,
    benchmark_grammars,
    synthetic_vocabulary,
)
from dendrite_jax.grammar import (
    CompiledGrammar,
    Grammar,
    GrammarCompiler,
    accept_token,
    allowed_tokens,
    apply_token_bitmask,
    initial_state,
    is_terminated,
)
from dendrite_jax.grammar.json_schema import strings

LANES = 64
COMPILES = 3
SHORT, LONG = 4, 16
"""Steps of the two loops whose times are subtracted."""
PEER_STEPS = 24


def run(vocab_size: int = VOCAB_SIZE, lanes: int = LANES) -> dict[str, Any]:
    """Compiles each grammar and decodes with it; logits are random, there is no model."""
    vocabulary = synthetic_vocabulary(vocab_size)
    start = time.perf_counter()
    compiler = GrammarCompiler(vocabulary, use_cache=False)
    trie_seconds = time.perf_counter() - start
    start = time.perf_counter()
    compiler.matchers  # noqa: B018  (made on first use; the rows below measure grammars)
    peer_seconds = time.perf_counter() - start
    nothing = jnp.zeros(lanes, jnp.int32)
    greedy = _step_seconds(_unconstrained, nothing, vocab_size)
    sampler = _step_seconds(_unconstrained, nothing, vocab_size, noise=True)
    rows = []
    for name, (grammar, depth) in benchmark_grammars().items():
        compiled, compile_seconds = _compile(compiler, grammar, depth)
        start_state = initial_state(compiled, nothing)
        step = _step_seconds(_constrained(compiled), start_state, vocab_size)
        peer = _peer(compiler, grammar, compiled, lanes)
        rows.append(
            {
                "grammar": name,
                "compile_ms": 1e3 * compile_seconds,
                "states": compiled.next_state.shape[0],
                "classes": compiled.next_state.shape[1],
                "masks": compiled.token_bitmask.shape[0],
                "MiB": compiled.nbytes / 2**20,
                "step_us": 1e6 * (step - greedy),
                "sampler_us": 1e6 * sampler,
                **peer,
            }
        )
    return {
        "benchmark": "grammar",
        "environment": harness.environment(),
        "lanes": lanes,
        "vocab_size": vocab_size,
        "vocabulary_trie_ms": 1e3 * trie_seconds,
        "llguidance_tokenizer_ms": 1e3 * peer_seconds,
        "rows": rows,
        "not_measured": "the share of a model's step: no model runs here",
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    title = (
        f"grammar, {result['lanes']} lanes, {result['vocab_size']} tokens; "
        f"trie built in {result['vocabulary_trie_ms']:.0f} ms, "
        f"llguidance's tokenizer in {result['llguidance_tokenizer_ms']:.0f} ms"
    )
    harness.print_table(title, result["rows"])


def _compile(
    compiler: GrammarCompiler, grammar: Grammar, depth: int | None
) -> tuple[CompiledGrammar, float]:
    """The median of cold compilations: what one left in the caches of strings is cleared."""
    seconds = []
    for _ in range(COMPILES):
        strings.pattern_dfa.cache_clear()
        strings.string_dfa.cache_clear()
        start = time.perf_counter()
        compiled = jax.block_until_ready(compiler.compile(grammar, max_recursion_depth=depth))
        seconds.append(time.perf_counter() - start)
    return compiled, float(np.median(seconds))


_Chooser = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _unconstrained(logits: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.argmax(logits, -1), state


def _constrained(compiled: CompiledGrammar) -> _Chooser:
    def choose(logits: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        token = jnp.argmax(apply_token_bitmask(logits, compiled, state), -1)
        after = accept_token(compiled, state, token)
        # A finished lane begins again, so that no lane idles.
        return token, jnp.where(is_terminated(after), initial_state(compiled), after)

    return choose


def _step_seconds(
    choose: _Chooser, state: jax.Array, vocab_size: int, noise: bool = False
) -> float:
    """Seconds a step of choosing tokens, with Gumbel noise where asked, without leaving a loop."""
    fixed = jax.random.normal(jax.random.key(1), (len(state), vocab_size))

    @jax.jit
    def loop(steps: jax.Array, logits: jax.Array, state: jax.Array) -> jax.Array:
        def body(
            step: jax.Array, carry: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            key = jax.random.fold_in(jax.random.key(0), step)
            # The logits depend on the step, so that their maximum is taken anew each time.
            noisy = logits + (jax.random.gumbel(key, logits.shape) if noise else step)
            token, after = choose(noisy, carry[1])
            return carry[0] + token, after

        start = (jnp.zeros(len(state), jnp.int32), state)
        return jax.lax.fori_loop(0, steps, body, start)[0]

    lengths = [jnp.int32(SHORT), jnp.int32(LONG)]
    with jax.transfer_guard("disallow"):
        short, long = (
            harness.time_calls(functools.partial(loop, steps, fixed, state), 3, 1).p50
            for steps in lengths
        )
    return (long - short) / (LONG - SHORT)


def _peer(
    compiler: GrammarCompiler, grammar: Grammar, compiled: CompiledGrammar, lanes: int
) -> dict[str, Any]:
    """llguidance on the host: one matcher a branch, masks in threads, one copy to the device."""
    start = time.perf_counter()
    root = compiler.matchers.root(grammar)
    compile_seconds = time.perf_counter() - start
    matchers = [root.deep_copy() for _ in range(lanes)]
    executor = llguidance.LLExecutor()
    words = llguidance.numpy.allocate_token_bitmask(lanes, compiler.vocab_size)
    rng = np.random.default_rng(0)
    state = initial_state(compiled, jnp.zeros(lanes, jnp.int32))
    masks, tokens_seconds = [], []
    for _ in range(PEER_STEPS):
        start = time.perf_counter()
        pairs = [(matcher, lane) for lane, matcher in enumerate(matchers)]
        llguidance.numpy.fill_next_token_bitmask_par(executor, pairs, words)
        jax.block_until_ready(jnp.asarray(words))
        masks.append(time.perf_counter() - start)
        token = _random_tokens(rng, np.asarray(allowed_tokens(compiled, state)), compiler.eos_ids)
        start = time.perf_counter()
        for matcher, chosen in zip(matchers, token.tolist(), strict=True):
            matcher.consume_token(chosen)
        tokens_seconds.append(time.perf_counter() - start)
        state = accept_token(compiled, state, jnp.asarray(token, jnp.int32))
        for lane in np.flatnonzero(np.asarray(is_terminated(state))):
            matchers[lane] = root.deep_copy()
        state = jnp.where(is_terminated(state), initial_state(compiled), state)
    return {
        "llguidance_compile_ms": 1e3 * compile_seconds,
        "llguidance_mask_us": 1e6 * float(np.median(masks)),
        "llguidance_accept_us": 1e6 * float(np.median(tokens_seconds)),
    }


def _random_tokens(
    rng: np.random.Generator, allowed: np.ndarray, eos: tuple[int, ...]
) -> np.ndarray:
    """One allowed token a lane, the end only where nothing else is allowed."""
    going_on = allowed.copy()
    going_on[:, list(eos)] = False
    choices = np.where(going_on.any(axis=1, keepdims=True), going_on, allowed)
    return np.argmax(choices * rng.random(choices.shape), axis=1)
