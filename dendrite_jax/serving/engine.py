"""A Python object around the functional engine, for scripts that work branch by branch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import (
    PLAIN,
    ByteAutomaton,
    GenerateConfig,
    Generated,
    Sampling,
    State,
    StopRules,
    StopStrings,
)
from dendrite_jax.grammar import Grammar, GrammarCompiler
from dendrite_jax.kernels.policy import Implementation
from dendrite_jax.models import Decoder, load
from dendrite_jax.serving.compilation import compilation_cache_folder
from dendrite_jax.serving.completion import Completion, Record, TokenTexts
from dendrite_jax.serving.exit_on_miss import complete_generation
from dendrite_jax.serving.grammars import AnyCompiled, HeldGrammars, compile_or_start
from dendrite_jax.serving.lanes import (
    capacity_bucket,
    lane_bucket,
    pad_ids,
    pad_sampling,
    pad_stop_tokens,
)
from dendrite_jax.serving.programs import compiled, host_programs
from dendrite_jax.serving.prompts import open_prompts
from dendrite_jax.serving.validation import (
    branch_id,
    branch_ids,
    check_grammar,
    check_prompt,
    check_sampling,
    check_seed,
    check_stop_strings,
    check_text,
    prompt_ids,
    texts,
    whole_number,
    whole_numbers,
)
from dendrite_jax.text import Tokenizer

DEFAULT_CONTEXT = 2048
"""Tokens that a branch can hold where nobody says how many."""
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
        max_context: int | None = None,
        num_slots: int = 64,
        num_blocks: int | None = None,
        memory_fraction: float = 0.5,
        block_size: int = 16,
        allow_longer_context: bool = False,
    ) -> None:
        """Allocates the cache.

        Args:
          model: the decoder.
          tokenizer: its tokenizer.
          max_context: tokens that a branch can hold; None takes DEFAULT_CONTEXT, or what the model
            was made for if that is less.
          num_slots: branches that can be held at once.
          num_blocks: blocks of the pool; None takes what `memory_fraction` of the device's free
            memory holds, and no more than all slots at full length could use.
          memory_fraction: see num_blocks.
          block_size: tokens a block.
          allow_longer_context: lets max_context be beyond the model's `max_position`.

        Raises:
          ValueError: a capacity is out of its range.
        """
        if max_context is None:
            max_context = min(DEFAULT_CONTEXT, model.max_position or DEFAULT_CONTEXT)
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
        self.state = compiled().init(
            model, config=config, allow_longer_context=allow_longer_context
        )
        self._grammars = HeldGrammars()
        self._compile_stops = lru_cache(maxsize=16)(self._compile_stop_strings)

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
            tokens = prompt_ids(text)
        check_prompt(tokens, self.model.vocab_size, self.config.max_context)
        check_grammar(grammar, self.model.vocab_size)
        words = np.array([[0, seed]], np.uint32)  # of `jax.random.key(seed)`
        self.state, roots, held = open_prompts(self.model, self.state, [tokens], words)
        branch = int(roots[0])
        if not held[0]:
            error = self._take_error([branch] if branch >= 0 else [])
            self.state = compiled().free(self.state, roots)
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
        (branch,) = self._check_held([branch_id(branch)])
        n = whole_number(n, "n", least=1)
        held = int(np.asarray(self.state.cache.alive).sum())
        if held + n > self.config.num_slots:
            raise kv.CapacityError(
                f"no slots for {n} children: num_slots is {self.config.num_slots}, {held} are held"
            )
        self.state, ids = compiled().fork(self.state, pad_ids([branch] * n))
        return np.asarray(ids)[:n].tolist()

    def free(self, branches: Sequence[int]) -> None:
        """Gives branches back; BranchError if one is not held or named twice."""
        self.state = compiled().free(self.state, pad_ids(self._check_held(branches)))

    def generate(
        self,
        branches: Sequence[int],
        max_new_tokens: int,
        sampling: Sampling = PLAIN,
        stop_strings: Sequence[str] | str = (),
        stop_tokens: Sequence[int] | None = None,
        grammar: AnyCompiled | None = None,
        fast_forward: int = 0,
    ) -> list[Completion]:
        """Grows branches together.

        Args:
          branches: ids, each once.
          max_new_tokens: most tokens a branch gets.
          sampling: how to choose tokens.
          stop_strings: texts, or one, that end a branch; the completion's text ends before them. A
            special token's own text is matched too (`<|end|>`).
          stop_tokens: ids that end a branch; None takes the tokenizer's end-of-text tokens.
          grammar: what the branches must generate from here on; None leaves them under theirs.
          fast_forward: see `GenerateConfig`; fewer steps, the same tokens.

        Raises:
          ValueError: a bad argument; nothing changed.
          CapacityError: a branch ran out of blocks or context. The branches hold what fitted, and
            go on from there when there is room again.
          BranchError: a branch is not held, or is named twice.
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
        stop_strings: Sequence[str] | str = (),
        stop_tokens: Sequence[int] | None = None,
        grammar: AnyCompiled | None = None,
        fast_forward: int = 0,
        chunk: int = STREAM_CHUNK,
    ) -> Iterator[list[Completion]]:
        """`generate`, yielding what each branch has so far after every `chunk` tokens.

        A text only ever grows: what may yet turn out to begin a stop string is held back.
        """
        branches = self._check_held(branches)
        check_sampling(sampling)
        max_new_tokens = whole_number(max_new_tokens, "max_new_tokens", least=1)
        chunk = min(whole_number(chunk, "chunk", least=1), max_new_tokens)
        fast_forward = whole_number(fast_forward, "fast_forward", least=0)
        check_grammar(grammar, self.model.vocab_size)
        lanes = _Lanes(
            branches,
            max_new_tokens,
            chunk,
            GenerateConfig(capacity_bucket(chunk), fast_forward=fast_forward),
            pad_sampling(sampling, max(len(branches), 1)),
            *self._stops(stop_strings, stop_tokens),
        )
        self._put_under(grammar, branches)
        return self._stream(lanes)

    def stats(self) -> dict[str, float]:
        """Usage of the cache and the ledger, as Python numbers."""
        usage, ledger = jax.device_get((host_programs().stats(self.state), self.state.cache.ledger))
        named = {name: getattr(usage, name).item() for name in usage.__dataclass_fields__}
        return {**named, **ledger.totals()}

    def _stream(self, lanes: _Lanes) -> Iterator[list[Completion]]:
        records = [Record(branch, self._token_texts, lanes.strings) for branch in lanes.branches]
        string_state: ArrayLike = np.zeros(lane_bucket(len(records)), np.int32)
        done = 0
        while done < lanes.max_new_tokens and any(record.running for record in records):
            size = min(lanes.chunk, lanes.max_new_tokens - done)
            ids = pad_ids(r.branch if r.running else -1 for r in records)
            stop = lanes.stop.replace(limit=np.int32(size))
            out = self._grow(ids, lanes, stop, string_state)
            string_state = out.string_state
            done += size
            # One transfer for the whole round.
            host = jax.device_get(
                (out.tokens, out.length, out.logprobs, out.raw_logprobs, out.finish)
            )
            for record, *row in zip(records, *host, strict=False):
                record.take(*row, last=done == lanes.max_new_tokens)
            if any(record.finish == "failed" for record in records):
                raise self._take_error(lanes.branches)
            yield [record.completion() for record in records]

    def _grow(
        self, ids: np.ndarray, lanes: _Lanes, stop: StopRules, string_state: ArrayLike
    ) -> Generated:
        def go_on(state: State, begun: Generated | None) -> tuple[State, Generated]:
            # Kept here, so that an error between two calls leaves a sound state.
            self.state, out = compiled().generate(
                self.model,
                state,
                ids,
                config=lanes.config,
                sampling=lanes.sampling,
                stop=stop,
                string_state=string_state,
                begun=begun,
            )
            return self.state, out

        lazy = self._grammars.lazy
        if lazy is None:
            return go_on(self.state, None)[1]
        # Going on after a miss is then the same trace as beginning.
        begun = host_programs().begin(
            self.model, self.state, ids, config=lanes.config, string_state=string_state
        )
        return complete_generation(lazy, *go_on(self.state, begun), go_on)[1]

    def _put_under(self, grammar: AnyCompiled | None, branches: Sequence[int]) -> None:
        if grammar is not None:
            table, index = self._grammars.add(self.state, grammar, branches)
            self.state = compiled().constrain(self.state, pad_ids(branches), table, index)

    def stop_rules(
        self, stop_strings: Sequence[str] | str = (), stop_tokens: Sequence[int] | None = None
    ) -> StopRules:
        """What ends a branch, for `generate` and searches; arguments as in `generate`."""
        stop, _ = self._stops(stop_strings, stop_tokens)
        return StopRules.of(self._stop_tokens(stop_tokens), stop.strings)

    def _stops(
        self, stop_strings: Sequence[str] | str, stop_tokens: Sequence[int] | None
    ) -> tuple[StopRules, ByteAutomaton | None]:
        """What ends a branch, its tokens padded, and the automaton of its stop strings."""
        tokens = pad_stop_tokens(self._stop_tokens(stop_tokens))
        strings = tuple(texts(stop_strings, "stop_strings"))
        automaton, table = self._compile_stops(strings) if strings else (None, None)
        return StopRules(tokens, table), automaton

    def _stop_tokens(self, stop_tokens: Sequence[int] | None) -> list[int]:
        if stop_tokens is None:
            return list(self.tokenizer.eos_ids)
        tokens = whole_numbers(stop_tokens, "stop_tokens", "a list of token ids")
        for token in tokens:
            if not 0 <= token < self.model.vocab_size:
                raise ValueError(
                    f"stop token {token} is outside the vocabulary [0, {self.model.vocab_size})"
                )
        return tokens

    def _compile_stop_strings(self, strings: tuple[str, ...]) -> tuple[ByteAutomaton, StopStrings]:
        automaton = ByteAutomaton(strings)
        check_stop_strings(strings, self._token_texts.matched)
        return automaton, engine.compile_stop_strings(automaton, self._token_texts.matched)

    @cached_property
    def _token_texts(self) -> TokenTexts:
        """Of all rows of the embedding, which may be more than the tokenizer's tokens."""
        padding = [None] * (self.model.vocab_size - self.tokenizer.vocab_size)
        visible = [*self.tokenizer.token_bytes, *padding]
        matched = list(visible)
        for text, token in self.tokenizer.special_texts.items():
            matched[token] = text.encode()
        return TokenTexts(visible, matched)

    def _check_held(self, branches: Sequence[int]) -> list[int]:
        branches = branch_ids(branches)
        alive = np.asarray(self.state.cache.alive)
        for branch in branches:
            if not (0 <= branch < alive.size and alive[branch]):
                raise kv.BranchError(f"branch {branch} is not held")
        if len(set(branches)) != len(branches):
            raise kv.BranchError(f"branches {branches} name one branch twice")
        return branches

    def _take_error(self, branches: Sequence[int]) -> Exception:
        """What stopped these branches; its flags are cleared, so that no later call meets them."""
        error = kv.find_error(self.state.cache, branches)
        assert error is not None
        self.state = host_programs().clear_errors(self.state, pad_ids(branches))
        return error


class _Lanes(NamedTuple):
    """What a call of `generate` was asked for, one lane a branch."""

    branches: list[int]
    max_new_tokens: int
    chunk: int
    config: GenerateConfig
    sampling: Sampling
    stop: StopRules
    strings: ByteAutomaton | None
