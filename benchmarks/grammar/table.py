"""What a grammar costs: compiling it, and a step under it, against masks made on the host."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.grammar.cases import (
    VOCAB_SIZE,
    SyntheticVocabulary,
    benchmark_grammars,
    flags,
    synthetic_vocabulary,
)
from dendrite_jax.benchmarks.grammar.engine import step_cost, tokens_per_step
from dendrite_jax.benchmarks.grammar.peers import measure, peers
from dendrite_jax.grammar import CompiledGrammar, Grammar, GrammarCompiler
from dendrite_jax.grammar.json_schema import strings

LANES = 64
COMPILES = 3
USUAL = "10 properties"
"""The grammar whose step is timed."""
FORCED_TEXTS = 4
BYTES = 256


def run(vocab_size: int = VOCAB_SIZE, lanes: int = LANES) -> dict[str, Any]:
    """Compiles each grammar here and in the peers, and generates under one; weights are random."""
    vocabulary = synthetic_vocabulary(vocab_size)
    compiler = GrammarCompiler(vocabulary, use_cache=False)
    grammars = benchmark_grammars()
    rows = []
    for name, (grammar, depth) in grammars.items():
        compiled, seconds, cpu_seconds = _compile(compiler, grammar, depth)
        rows.append(
            {
                "grammar": name,
                "compile_ms": 1e3 * seconds,
                "compile_cpu_ms": 1e3 * cpu_seconds,
                "states": compiled.next_state.shape[0],
                "classes": compiled.next_state.shape[1],
                "masks": compiled.token_bitmask.shape[0],
                "MiB": compiled.nbytes / 2**20,
            }
        )
    installed = peers(compiler)
    peer_rows, not_measured = [], []
    for library, peer in installed.items():
        if peer is None:
            not_measured.append(f"{library}: not installed")
            continue
        for name, (grammar, _) in grammars.items():
            try:
                times = measure(peer, grammar, compiler, lanes)
            except NotImplementedError as reason:
                not_measured.append(f"{library}, {name}: {reason}")
            else:
                peer_rows.append({"library": library, "grammar": name, **times})
    usual, _ = grammars[USUAL]
    forcing = flags()
    return {
        "benchmark": "grammar",
        "environment": harness.environment(),
        "lanes": lanes,
        "vocab_size": vocab_size,
        "trie": _trie_ms(vocabulary),
        "rows": rows,
        "step": step_cost(compiler, usual, lanes),
        "tokens_per_step_with_fast_forward": {
            "this vocabulary": tokens_per_step(compiler, compiler.compile(forcing), FORCED_TEXTS),
            "single bytes": _tokens_per_step_of_bytes(forcing),
        },
        "peers": peer_rows,
        "notes": [
            "compile_cpu_ms is processor time, as are the step's figures where the device is a "
            "CPU; all other times are the wall clock's"
        ],
        "not_measured": [
            *not_measured,
            "a large model's own step: the share of it is of the 5.45 ms in decode_h100.json",
        ],
    }


def show(result: dict[str, Any]) -> None:
    """Prints what `run` gives."""
    trie = result["trie"]
    title = (
        f"grammar, {result['lanes']} lanes, {result['vocab_size']} tokens; trie built in "
        f"{trie['build_ms']:.0f} ms, read from disk in {trie['cached_ms']:.0f} ms"
    )
    harness.print_table(title, result["rows"])
    harness.print_table("a step of generate, without a model's own work", [result["step"]])
    harness.print_table("masks made on the host, all lanes, for each step", result["peers"])
    harness.print_table(
        "tokens a step with fast-forward, ten yes-or-no properties",
        [result["tokens_per_step_with_fast_forward"]],
    )
    for line in result["not_measured"]:
        print(f"not measured: {line}")


def _compile(
    compiler: GrammarCompiler, grammar: Grammar, depth: int | None
) -> tuple[CompiledGrammar, float, float]:
    """The medians, in seconds, of cold compilations and of the processor time they took.

    What one left in the caches of strings is cleared.
    """
    seconds, cpu_seconds = [], []
    for _ in range(COMPILES):
        strings.pattern_dfa.cache_clear()
        strings.string_dfa.cache_clear()
        start, cpu_start = time.perf_counter(), time.process_time()
        compiled = jax.block_until_ready(compiler.compile(grammar, max_recursion_depth=depth))
        seconds.append(time.perf_counter() - start)
        cpu_seconds.append(time.process_time() - cpu_start)
    return compiled, float(np.median(seconds)), float(np.median(cpu_seconds))


def _trie_ms(vocabulary: SyntheticVocabulary) -> dict[str, float]:
    """Milliseconds of making a compiler for a new vocabulary and for one that is on disk."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("build_ms", "cached_ms"):
            start = time.perf_counter()
            GrammarCompiler(vocabulary, cache_dir=Path(folder))
            found[name] = 1e3 * (time.perf_counter() - start)
    return found


def _tokens_per_step_of_bytes(grammar: Grammar) -> float:
    """The gain where every text has one spelling, so that much of it is forced."""
    vocabulary = SyntheticVocabulary([*(bytes([byte]) for byte in range(BYTES)), None], (BYTES,))
    compiler = GrammarCompiler(vocabulary, use_cache=False)
    return tokens_per_step(compiler, compiler.compile(grammar), FORCED_TEXTS)
