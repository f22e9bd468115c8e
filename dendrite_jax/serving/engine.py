"""A Python object around the functional engine, for scripts that work branch by branch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import (
    PLAIN,
    GenerateConfig,
    Generated,
    Sampling,
    State,
    StopRules,
)
from dendrite_jax.grammar import Grammar, GrammarCompiler
from dendrite_jax.kernels.policy import Implementation
from dendrite_jax.models import Decoder, load
from dendrite_jax.serving.compilation import compilation_cache_folder, loop_options
from dendrite_jax.serving.completion import Completion, Record
from dendrite_jax.serving.exit_on_miss import complete_generation
from dendrite_jax.serving.grammars import AnyCompiled, HeldGrammars, compile_or_start
from dendrite_jax.serving.validation import (
    check_grammar,
    check_prompt,
    check_sampling,
    check_seed,
    check_stop_strings,
    check_text,
)
from dendrite_jax.text import Tokenizer

STREAM_CHUNK = 8
"""Tokens that `Engine.stream` generates between two visits to the host."""


class Engine:
    """Holds a model and its state; every method checks its input and leaves a sound state.

    The functional API (`dendrite_jax.engine`, `dendrite_jax.search`) works on `engine.model` and
    `engine.state`; put the state that it returns back into `engine.state`.
    """

    def __init__(
        self,
        model: Decoder,
        tokenizer: Tokenizer,
        *,
        max_context: int = 2048,
        num_slots: int = 64,
        num_blocks: int | None = None,
        memory_fraction: float = 0.5,
        block_size: int = 16,
    ) -> None:
        """Allocates the cache.

        Args:
          model: the decoder.
          tokenizer: its tokenizer.
          max_context: tokens that a branch can hold.
          num_slots: branches that can be held at once.
          num_blocks: blocks of the pool; None takes what `memory_fraction` of the device's free
            memory holds, and no more than all slots at full length could use.
          memory_fraction: see num_blocks.
          block_size: tokens a block.

        Raises:
          ValueError: a capacity is out of its range.
        """
        self.model = model
        self.tokenizer = tokenizer
        # Checks the capacities that the number of blocks is worked out from.
        config = CacheConfig(
            1 if num_blocks is None else num_blocks, num_slots, max_context, block_size
        )
        if num_blocks is None:
            per_block = kv.block_bytes(model.kv_shape, dtype=model.dtype, block_size=block_size)
            fitting = kv.blocks_for_fraction(memory_fraction, per_block, jax.devices()[0])
            config = replace(config, num_blocks=min(fitting, num_slots * config.max_blocks))
        self.config = config
        self.state = jax.jit(engine.init, static_argnames="config")(model, config=self.config)
        self._open = jax.jit(engine.open_branches, donate_argnums=0)
        self._prefill = jax.jit(engine.prefill, donate_argnums=1)
        self._fork = jax.jit(engine.fork, donate_argnums=0)
        self._free = jax.jit(engine.free, donate_argnums=0)
        self._grammars = HeldGrammars()
        self._constrain = jax.jit(engine.constrain, donate_argnums=0)
        self._generate = jax.jit(
            engine.generate,
            static_argnames="config",
            donate_argnums=1,
            compiler_options=loop_options(),
        )

    @classmethod
    def load(
        cls,
        model: str | Path,
        dtype: DTypeLike | None = None,
        progress: Callable[[int, int], None] | None = None,
        implementation: Implementation | None = None,
        **capacities: int | float | None,
    ) -> Engine:
        """Loads a checkpoint (see `models.load`) and allocates the cache (see `Engine`)."""
        return cls(*load(model, dtype, progress, implementation), **capacities)  # type: ignore[arg-type]

    @cached_property
    def compiler(self) -> GrammarCompiler:
        """Compiles grammars for this model's tokens."""
        cached = compilation_cache_folder() is not None
        return GrammarCompiler(self.tokenizer, vocab_size=self.model.vocab_size, use_cache=cached)

    def compile(self, grammar: Grammar, max_recursion_depth: int | None = None) -> AnyCompiled:
        """A grammar for `prompt` and `generate` (see `compile_or_start`); keep it, to reuse it."""
        return compile_or_start(self.compiler, grammar, max_recursion_depth)

    def prompt(
        self, text: str | Sequence[int], seed: int = 0, grammar: AnyCompiled | None = None
    ) -> int:
        """Opens a branch and runs a prompt through the model; the branch's id.

        Args:
          text: a text, framed as the tokenizer's template says, or token ids as they are.
          seed: makes the branch's random key; from 0 to 2³² − 1.
          grammar: what the branch and its forks must generate after the prompt.

        Raises:
          PromptError: the prompt is empty, too long, not of this vocabulary or no Unicode; nothing
            changed.
          ValueError: a bad seed or a grammar for another vocabulary; nothing changed.
          CapacityError: no slot or not enough blocks; the branch is not kept.
        """
        check_seed(seed)
        if isinstance(text, str):
            check_text(text)
            tokens = self.tokenizer.encode(text, add_special_tokens=True)
        else:
            tokens = list(text)
        check_prompt(tokens, self.model.vocab_size, self.config.max_context)
        check_grammar(grammar, self.model.vocab_size)
        padded = np.zeros((1, engine.length_bucket(len(tokens))), np.int32)
        padded[0, : len(tokens)] = tokens
        self.state, ids = self._open(self.state, jax.random.key(seed)[None])
        self.state, stepped = self._prefill(
            self.model, self.state, ids, padded, jnp.array([len(tokens)])
        )
        branch = int(ids[0])
        if not stepped.ok[0]:
            error = self._take_error([branch] if branch >= 0 else [])
            self.state = self._free(self.state, ids)
            raise error
        self._put_under(grammar, [branch])
        return branch

    def fork(self, branch: int, n: int = 1) -> list[int]:
        """Makes n children of a branch; their ids.

        Raises:
          BranchError: the branch is not held.
          ValueError: n is below 1.
          CapacityError: not enough slots; nothing changed.
        """
        self._check_held([branch])
        if n < 1:
            raise ValueError(f"n is {n}; it must be at least 1")
        held = int(np.sum(self.state.cache.alive))
        if held + n > self.config.num_slots:
            raise kv.CapacityError(
                f"no slots for {n} children: num_slots is {self.config.num_slots}, {held} are held"
            )
        self.state, ids = self._fork(self.state, jnp.full(n, branch))
        return np.asarray(ids).tolist()

    def free(self, branches: Sequence[int]) -> None:
        """Gives branches back; BranchError if one is not held or named twice."""
        self._check_held(branches)
        self.state = self._free(self.state, jnp.array(branches, jnp.int32))

    def generate(
        self,
        branches: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling = PLAIN,
        stop_strings: Sequence[str] = (),
        stop_tokens: Sequence[int] | None = None,
        grammar: AnyCompiled | None = None,
        fast_forward: int = 0,
    ) -> list[Completion]:
        """Grows branches together.

        Args:
          branches: ids, each once.
          max_new_tokens: most tokens a branch gets.
          sampling: how to choose tokens.
          stop_strings: texts that end a branch; the completion's text ends before them.
          stop_tokens: ids that end a branch; None takes the tokenizer's end-of-text tokens.
          grammar: what the branches must generate from here on; None leaves them under theirs.
          fast_forward: see `GenerateConfig`; fewer steps, the same tokens.

        Raises:
          ValueError: a bad argument; nothing changed.
          CapacityError: a branch ran out of blocks or context. The branches hold what fitted, and
            go on from there when there is room again.
        """
        completions = []
        for last in self.stream(
            branches,
            max_new_tokens,
            sampling,
            stop_strings,
            stop_tokens,
            grammar,
            fast_forward,
            chunk=max_new_tokens,
        ):
            completions = last
        return completions

    def stream(
        self,
        branches: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling = PLAIN,
        stop_strings: Sequence[str] = (),
        stop_tokens: Sequence[int] | None = None,
        grammar: AnyCompiled | None = None,
        fast_forward: int = 0,
        chunk: int = STREAM_CHUNK,
    ) -> Iterator[list[Completion]]:
        """`generate`, yielding what each branch has so far after every `chunk` tokens.

        A text only ever grows: what may yet turn out to begin a stop string is held back.
        """
        self._check_held(branches)
        check_sampling(sampling)
        if max_new_tokens < 1:
            raise ValueError(f"max_new_tokens is {max_new_tokens}; it must be at least 1")
        if chunk < 1:
            raise ValueError(f"chunk is {chunk}; it must be at least 1")
        check_grammar(grammar, self.model.vocab_size)
        shape = GenerateConfig(min(chunk, max_new_tokens), fast_forward=fast_forward)
        rules = self.stop_rules(stop_strings, stop_tokens)
        self._put_under(grammar, branches)
        return self._stream(list(branches), max_new_tokens, shape, sampling, rules, stop_strings)

    def stats(self) -> dict[str, float]:
        """Usage of the cache and the ledger, as Python numbers."""
        usage = kv.stats(self.state.cache)
        named = {name: getattr(usage, name).item() for name in usage.__dataclass_fields__}
        return {**named, **self.state.cache.ledger.totals()}

    def _stream(
        self,
        branches: list[int],
        max_new_tokens: int,
        shape: GenerateConfig,
        sampling: Sampling,
        rules: StopRules,
        stop_strings: Sequence[str],
    ) -> Iterator[list[Completion]]:
        records = [Record(branch, self.tokenizer, stop_strings) for branch in branches]
        string_state = jnp.zeros(len(branches), jnp.int32)
        done = 0
        while done < max_new_tokens and any(record.running for record in records):
            size = min(shape.max_new_tokens, max_new_tokens - done)
            ids = jnp.array([r.branch if r.running else -1 for r in records], jnp.int32)
            out = self._grow(
                ids, replace(shape, max_new_tokens=size), sampling, rules, string_state
            )
            string_state = out.string_state
            done += size
            # One transfer for the whole round.
            host = jax.device_get(
                (out.tokens, out.length, out.logprobs, out.raw_logprobs, out.finish)
            )
            for record, *row in zip(records, *host, strict=True):
                record.take(*row, last=done == max_new_tokens)
            if any(record.finish == "failed" for record in records):
                raise self._take_error(branches)
            yield [record.completion() for record in records]

    def _grow(
        self,
        ids: jax.Array,
        shape: GenerateConfig,
        sampling: Sampling,
        rules: StopRules,
        string_state: jax.Array,
    ) -> Generated:
        def go_on(state: State, begun: Generated | None) -> tuple[State, Generated]:
            # Kept here, so that an error between two calls leaves a sound state.
            self.state, out = self._generate(
                self.model,
                state,
                ids,
                config=shape,
                sampling=sampling,
                stop=rules,
                string_state=string_state,
                begun=begun,
            )
            return self.state, out

        lazy = self._grammars.lazy
        if lazy is None:
            return go_on(self.state, None)[1]
        # Going on after a miss is then the same trace as beginning.
        begun = Generated.empty(self.model, self.state, ids, shape, string_state)
        return complete_generation(lazy, *go_on(self.state, begun), go_on)[1]

    def _put_under(self, grammar: AnyCompiled | None, branches: Sequence[int]) -> None:
        if grammar is not None:
            table, index = self._grammars.add(self.state, grammar, branches)
            ids = jnp.array(branches, jnp.int32)
            self.state = self._constrain(self.state, ids, table, index)

    def stop_rules(
        self, stop_strings: Sequence[str] = (), stop_tokens: Sequence[int] | None = None
    ) -> StopRules:
        """What ends a branch, for `generate` and searches; arguments as in `generate`."""
        tokens = self.tokenizer.eos_ids if stop_tokens is None else stop_tokens
        for token in tokens:
            if not 0 <= token < self.model.vocab_size:
                raise ValueError(
                    f"stop token {token} is outside the vocabulary [0, {self.model.vocab_size})"
                )
        if not stop_strings:
            return StopRules.of(tokens)
        padding = [None] * (self.model.vocab_size - self.tokenizer.vocab_size)
        token_bytes = [*self.tokenizer.token_bytes, *padding]
        table = engine.compile_stop_strings(stop_strings, token_bytes)
        check_stop_strings(stop_strings, token_bytes)
        return StopRules.of(tokens, table)

    def _check_held(self, branches: Sequence[int]) -> None:
        alive = np.asarray(self.state.cache.alive)
        for branch in branches:
            if not (0 <= branch < alive.size and alive[branch]):
                raise kv.BranchError(f"branch {branch} is not held")
        if len(set(branches)) != len(branches):
            raise kv.BranchError(f"branches {list(branches)} name one branch twice")

    def _take_error(self, branches: Sequence[int]) -> Exception:
        """What stopped these branches; its flags are cleared, so that no later call meets them."""
        cache = self.state.cache
        error = kv.find_error(cache, branches)
        assert error is not None
        self.state = self.state.replace(
            cache=cache.replace(
                error=cache.error.at[jnp.array(branches, jnp.int32)].set(0),
                misuse=jnp.int32(0),
                blocks_short=jnp.int32(0),
            )
        )
        return error
