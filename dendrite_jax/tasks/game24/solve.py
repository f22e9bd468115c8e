"""Solving puzzles: the embedded model, its tokenizer and any search, for hosts to call."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.cache.append import blocks_per_lane
from dendrite_jax.engine import PLAIN, Model, Sampling, State, StopRules
from dendrite_jax.models import Pretrained, load
from dendrite_jax.search import SampleThoughts, Scorer, SearchResult
from dendrite_jax.search.registry import Search, Task, build
from dendrite_jax.serving.search_host import check_time_limit, compile_search, search_on_host
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.rules import (
    PUZZLE_SIZE,
    PuzzleError,
    as_state,
    check_target,
    format_prompt,
    parse_puzzle,
)
from dendrite_jax.tasks.game24.game.token_rules import LINE_TOKENS
from dendrite_jax.tasks.game24.scoring import Game24Scorer
from dendrite_jax.tasks.game24.solutions import Results, Snapshot, judge_snapshot
from dendrite_jax.text import Tokenizer

PROMPT_TOKENS = PUZZLE_SIZE + 5
"""The start of the text, `Make`, the target, ` from`, the numbers and the newline."""
COMMIT = (vocab.SURE, vocab.NEWLINE)
"""What the model would write after a step that is worth going on from."""
HOPELESS = math.log(0.05)
"""A step with a lower value, log P(` sure`), is a dead end to a search that backtracks."""


# On a CPU this compiles in two thirds of the time and the search runs no slower.
_COMPILER_OPTIONS = {"cpu": {"xla_backend_optimization_level": 1}}


def load_solver(checkpoint: str | Path | None = None, dtype: DTypeLike | None = None) -> Pretrained:
    """Loads a model with this task's vocabulary, and its tokenizer.

    Args:
      checkpoint: its folder; the embedded model when None.
      dtype: of weights, computation and cache; None takes float32 on a CPU and the checkpoint's own
        elsewhere.

    Raises:
      ValueError: the checkpoint is missing, damaged or of another vocabulary.
    """
    if checkpoint is None:
        with as_file(files("dendrite_jax.tasks.game24").joinpath("weights")) as folder:
            return load_solver(folder, dtype)
    if dtype is None and jax.default_backend() == "cpu":
        dtype = jnp.float32
    pretrained = load(checkpoint, dtype)
    for word in vocab.WORDS:
        ids = pretrained.tokenizer.encode(word)
        if ids != [vocab.token_id(word)]:
            raise ValueError(
                f"{checkpoint}: the tokenizer makes {ids} of {word!r}, "
                f"that of a Game of 24 model makes [{vocab.token_id(word)}]"
            )
    return pretrained


class Game24Search:
    """A search on Game of 24: `Game24Search(*load_solver(), method="tree_of_thoughts")`.

    A thought is a step of the puzzle, up to its `)`; see Yao et al. 2023.

    Attributes:
      model: the model.
      tokenizer: of `tokenizer_build`.
      method: the search, its sizes and pieces bound.
    """

    model: Model
    tokenizer: Tokenizer
    method: Search

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        *,
        method: str = "tree_of_thoughts",
        sizes: Mapping[str, int] | None = None,
        score: Scorer | None = None,
        sampling: Sampling = PLAIN,
    ) -> None:
        """Fixes the shape of the search; nothing is compiled yet.

        Args:
          model: the model, in the dtype to compute in.
          tokenizer: its tokenizer.
          method: a name of `registry.SEARCHES` or `registry.ALIASES`.
          sizes: of the search, such as `breadth` and `proposals`; see `registry.sizes_of`.
          score: judges steps; `Game24Scorer()` when None.
          sampling: how steps are sampled.

        Raises:
          ValueError: no such method, a size that it does not have, or one out of its range.
        """
        task = Task(
            expand=SampleThoughts(LINE_TOKENS, StopRules.of([vocab.LEFT_CLOSE]), sampling),
            score=Game24Scorer() if score is None else score,
            depth=PUZZLE_SIZE - 1,
            commit=jnp.array(COMMIT, jnp.int32),
            hopeless=HOPELESS,
            stop_tokens=jnp.array([vocab.EOS], jnp.int32),
        )
        self.model, self.tokenizer = model, tokenizer
        self.method = build(method, task, sizes or {})
        self._options = _COMPILER_OPTIONS.get(jax.default_backend(), {})
        compiled = partial(jax.jit, compiler_options=self._options or None)
        self._open, self._fork = compiled(self._opened), compiled(engine.fork)
        self._search_whole = compiled(self._searched)

    def compile(self, num_puzzles: int = 1) -> None:
        """Compiles what `search` runs for so many puzzles at once, if not done before.

        The programs are compiled at the same time; the one that advances the search takes longest.
        """
        prompts = jax.ShapeDtypeStruct((num_puzzles, PROMPT_TOKENS), jnp.int32)
        parents = jax.ShapeDtypeStruct((max(self.method.thoughts, 1),), jnp.int32)
        opened = self._open.trace(self.model, prompts, jax.random.key(0))
        also = (opened.lower(), self._fork.lower(opened.out_info[0], parents))
        state, roots, keys = opened.out_info
        compile_search(self.method, self.model, state, roots, keys, self._options, also)

    def search(
        self,
        puzzles: Sequence[Sequence[int]],
        target: int = 24,
        seed: int = 0,
        *,
        watch: Callable[[Snapshot], None] | None = None,
        time_limit: float | None = None,
    ) -> Snapshot:
        """Searches several puzzles at once; what was found, also when Ctrl-C or the limit cuts it.

        Args:
          puzzles: four numbers each, in any order.
          target: the number to make.
          seed: of all sampling.
          watch: called with what there is after each part of the search.
          time_limit: seconds, without those that compiling takes.

        Raises:
          PuzzleError: a puzzle or the target is not one of the game; nothing was computed.
          ValueError: a time limit that is not positive; likewise.
        """
        numbers = _check_puzzles(puzzles, target)
        check_time_limit(time_limit)
        self.compile(len(numbers))

        def show(result: SearchResult) -> None:
            if watch is not None:
                watch(Snapshot(numbers, target, result))

        prompts = self._prompts(numbers, target)
        state, roots, keys = self._open(self.model, prompts, jax.random.key(seed))
        _, result = search_on_host(
            self.method,
            self.model,
            state,
            roots,
            keys,
            watch=show,
            time_limit=time_limit,
            options=self._options,
        )
        return Snapshot(numbers, target, result)

    def solve(self, puzzles: Sequence[Sequence[int]], target: int = 24, seed: int = 0) -> Results:
        """`search`, judged."""
        return self.judge(self.search(puzzles, target, seed))

    def solve_batch(
        self, puzzles: Sequence[Sequence[int]], target: int = 24, seed: int = 0
    ) -> Results:
        """What `solve` gives, by one jitted call for the whole search; for many puzzles."""
        numbers = _check_puzzles(puzzles, target)
        prompts = self._prompts(numbers, target)
        state, result = self._search_whole(
            self.model, self.method.pieces, prompts, jax.random.key(seed)
        )
        kv.raise_errors(state.cache)
        return self.judge(Snapshot(numbers, target, jax.device_get(result)))

    def fork_microseconds(self, repeats: int = 5) -> float:
        """Time of one fork, measured: one call makes as many children as the search may hold."""
        prompts = self._prompts(((1, 1, 1, 1),), 24)
        state, roots, _ = self._open(self.model, prompts, jax.random.key(0))
        children = max(self.method.thoughts, 1)
        parents = jnp.repeat(roots, children)
        seconds = []
        for _ in range(repeats + 1):
            start = time.perf_counter()
            jax.block_until_ready(self._fork(state, parents))
            seconds.append(time.perf_counter() - start)
        return 1e6 * float(np.median(seconds[1:])) / children

    def judge(self, snapshot: Snapshot) -> Results:
        """The answers of a search so far, judged by the exact rules."""
        return judge_snapshot(snapshot, self.tokenizer.decode)

    def _prompts(self, numbers: tuple[tuple[int, ...], ...], target: int) -> Array:
        """i32[puzzles, PROMPT_TOKENS]."""
        encode = self.tokenizer.encode
        texts = [format_prompt(as_state(puzzle), target) for puzzle in numbers]
        return jnp.array([[vocab.BOS, *encode(text)] for text in texts], jnp.int32)

    def _opened(self, model: Model, prompts: Array, key: Array) -> tuple[State, Array, Array]:
        """A state with the prompts in it, their branches and keys, a puzzle each."""
        puzzles, length = prompts.shape
        state = engine.init(model, cache_config(self.method, puzzles))
        keys = jax.random.split(key, puzzles)
        state, roots = engine.open_branches(state, keys)
        state, _ = engine.prefill(model, state, roots, prompts, jnp.full(puzzles, length))
        return state, roots, keys

    def _searched(
        self, model: Model, pieces: Any, prompts: Array, key: Array
    ) -> tuple[State, SearchResult]:
        return self.method._replace(pieces=pieces).run(model, *self._opened(model, prompts, key))


def cache_config(method: Search, num_puzzles: int) -> CacheConfig:
    """A cache that no search of this shape can fill.

    At worst no two whole paths share a block, and every step takes new blocks of its own.
    """
    capacities = CacheConfig(
        num_blocks=1,
        num_slots=num_puzzles * method.config.num_slots,
        max_context=PROMPT_TOKENS + method.path_tokens,
    )
    size = capacities.block_size
    root = -(-PROMPT_TOKENS // size)
    paths = method.paths * capacities.max_blocks
    thoughts = method.thoughts * blocks_per_lane(LINE_TOKENS, size)
    return replace(capacities, num_blocks=num_puzzles * (root + paths + thoughts))


def _check_puzzles(puzzles: Sequence[Sequence[int]], target: int) -> tuple[tuple[int, ...], ...]:
    """The puzzles in ascending order; PuzzleError for a bad one or a bad target."""
    check_target(target)
    if not puzzles:
        raise PuzzleError("puzzles: none given")
    return tuple(parse_puzzle(" ".join(map(str, puzzle))) for puzzle in puzzles)
