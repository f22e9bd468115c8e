"""Libraries that ask the host for a mask before every token: compile time, mask time, memory."""

from __future__ import annotations

import importlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import llguidance
import llguidance.numpy
import numpy as np

from dendrite_jax.benchmarks.grammar.engine import DECODE_STEP_US
from dendrite_jax.grammar import Grammar, GrammarCompiler, GrammarKind

STEPS = 24
"""Tokens that each branch takes."""


class Branch(Protocol):
    """One branch's matcher."""

    def accept(self, token: int) -> None: ...

    def finished(self) -> bool: ...


@dataclass(frozen=True)
class Compiled:
    """A peer's grammar: how to open a branch, how to fill the masks of all, and its size."""

    open: Callable[[], Branch]
    fill: Callable[[Sequence[Any], np.ndarray], None]
    size: int | None = None


class Peer(Protocol):
    """A library over one vocabulary."""

    def compile(self, grammar: Grammar) -> Compiled:
        """Compiles a grammar; NotImplementedError for a kind that the library does not have."""
        ...


def peers(compiler: GrammarCompiler) -> dict[str, Peer | None]:
    """The libraries, by name; None for one that is not installed."""
    found: dict[str, Peer | None] = {"llguidance": _LLGuidance(compiler)}
    for name, made in (("xgrammar", _XGrammar), ("outlines_core", _OutlinesCore)):
        try:
            found[name] = made(importlib.import_module(name), compiler)
        except ImportError:
            found[name] = None
    return found


def measure(peer: Peer, grammar: Grammar, compiler: GrammarCompiler, lanes: int) -> dict[str, Any]:
    """Times one grammar: `lanes` branches take random allowed tokens, their masks go to the device.

    A branch that finishes begins again.

    Raises:
        NotImplementedError: the library does not have, or is not given, this kind of grammar.
    """
    start, cpu_start = time.perf_counter(), time.process_time()
    compiled = peer.compile(grammar)
    compile_seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    branches = [compiled.open() for _ in range(lanes)]
    words = np.zeros((lanes, -(-compiler.vocab_size // 32)), np.int32)
    rng = np.random.default_rng(0)
    masks, accepts = [], []
    for _ in range(STEPS):
        start = time.perf_counter()
        compiled.fill(branches, words)
        jax.block_until_ready(jnp.asarray(words))
        masks.append(time.perf_counter() - start)
        tokens = _random_tokens(rng, words, compiler)
        start = time.perf_counter()
        for branch, token in zip(branches, tokens, strict=True):
            branch.accept(token)
        accepts.append(time.perf_counter() - start)
        branches = [compiled.open() if branch.finished() else branch for branch in branches]
    mask_us, accept_us = 1e6 * float(np.median(masks)), 1e6 * float(np.median(accepts))
    return {
        "compile_ms": 1e3 * compile_seconds,
        "compile_cpu_ms": 1e3 * cpu_seconds,
        "mask_us": mask_us,
        "accept_us": accept_us,
        "MiB": None if compiled.size is None else compiled.size / 2**20,
        "overhead_percent_of_8b_decode": 100 * (mask_us + accept_us) / DECODE_STEP_US,
    }


def _random_tokens(
    rng: np.random.Generator, words: np.ndarray, compiler: GrammarCompiler
) -> list[int]:
    """One allowed token a lane, the end only where nothing else is allowed."""
    bits = np.unpackbits(words.view(np.uint8), axis=1, bitorder="little")
    allowed = bits[:, : compiler.vocab_size].astype(bool)
    going_on = allowed.copy()
    going_on[:, list(compiler.eos_ids)] = False
    choices = np.where(going_on.any(axis=1, keepdims=True), going_on, allowed)
    return np.argmax(choices * rng.random(choices.shape), axis=1).tolist()


class _LLGuidance:
    """llguidance, with one matcher a branch and masks in threads."""

    def __init__(self, compiler: GrammarCompiler) -> None:
        self._matchers = compiler.matchers
        self._executor = llguidance.LLExecutor()

    def compile(self, grammar: Grammar) -> Compiled:
        root = self._matchers.root(grammar)

        def fill(branches: Sequence[_LLGuidanceBranch], words: np.ndarray) -> None:
            pairs = [(branch.matcher, lane) for lane, branch in enumerate(branches)]
            llguidance.numpy.fill_next_token_bitmask_par(self._executor, pairs, words)

        return Compiled(lambda: _LLGuidanceBranch(root.deep_copy()), fill)


class _LLGuidanceBranch:
    def __init__(self, matcher: llguidance.LLMatcher) -> None:
        self.matcher = matcher

    def accept(self, token: int) -> None:
        self.matcher.consume_token(token)

    def finished(self) -> bool:
        return self.matcher.is_stopped()


class _XGrammar:
    """xgrammar, with its batched mask function."""

    def __init__(self, library: Any, compiler: GrammarCompiler) -> None:
        self._library = library
        info = library.TokenizerInfo(
            [data or b"" for data in compiler.token_bytes],
            library.VocabType.RAW,
            vocab_size=compiler.vocab_size,
            stop_token_ids=list(compiler.eos_ids),
        )
        self._compiler = library.GrammarCompiler(info, cache_enabled=False)

    def compile(self, grammar: Grammar) -> Compiled:
        if grammar.kind is GrammarKind.JSON_SCHEMA:
            compiled = self._compiler.compile_json_schema(grammar.source)
        elif grammar.kind is GrammarKind.REGEX:
            compiled = self._compiler.compile_regex(grammar.source)
        elif grammar.kind is GrammarKind.CHOICE:
            choices = " | ".join(map(json.dumps, json.loads(grammar.source)))
            compiled = self._compiler.compile_grammar(f"root ::= {choices}")
        else:
            raise NotImplementedError(f"xgrammar has no {grammar.kind.value} grammars")
        batch = self._library.BatchGrammarMatcher()

        def fill(branches: Sequence[_XGrammarBranch], words: np.ndarray) -> None:
            import torch

            matchers = [branch.matcher for branch in branches]
            batch.batch_fill_next_token_bitmask(matchers, torch.from_numpy(words))

        return Compiled(
            lambda: _XGrammarBranch(self._library.GrammarMatcher(compiled)),
            fill,
            compiled.memory_size_bytes,
        )


class _XGrammarBranch:
    def __init__(self, matcher: Any) -> None:
        self.matcher = matcher

    def accept(self, token: int) -> None:
        self.matcher.accept_token(token)

    def finished(self) -> bool:
        return self.matcher.is_terminated()


class _OutlinesCore:
    """outlines_core's index; schemas become regexes by its own function."""

    def __init__(self, library: Any, compiler: GrammarCompiler) -> None:
        self._library = library
        ids: dict[bytes, list[int]] = {}
        for token, data in enumerate(compiler.token_bytes):
            if data is not None:
                ids.setdefault(data, []).append(token)
        self._vocabulary = library.Vocabulary(compiler.eos_ids[0], ids)

    def compile(self, grammar: Grammar) -> Compiled:
        if grammar.kind is not GrammarKind.REGEX:
            # A schema of ten properties takes it a minute over a vocabulary of the usual size.
            raise NotImplementedError(f"outlines_core is not run on a {grammar.kind.value}")
        index = self._library.Index(grammar.source, self._vocabulary)

        def fill(branches: Sequence[_OutlinesBranch], words: np.ndarray) -> None:
            for branch, row in zip(branches, words, strict=True):
                branch.guide.write_mask_into(row.ctypes.data, row.size, row.itemsize)

        return Compiled(lambda: _OutlinesBranch(self._library.Guide(index)), fill)


class _OutlinesBranch:
    def __init__(self, guide: Any) -> None:
        self.guide = guide

    def accept(self, token: int) -> None:
        self.guide.advance(token, return_tokens=False)

    def finished(self) -> bool:
        return self.guide.is_finished()
