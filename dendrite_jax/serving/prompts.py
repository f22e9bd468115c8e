"""From a model and prompts to a state that holds them, sized for what is to be done with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax.cache import NO_BRANCH, CacheConfig
from dendrite_jax.engine import Model, State, length_bucket
from dendrite_jax.serving.lanes import lane_bucket
from dendrite_jax.serving.programs import compiled, host_programs
from dendrite_jax.serving.validation import (
    PromptError,
    check_prompt,
    check_seed,
    check_text,
    prompt_ids,
    whole_number,
)
from dendrite_jax.text import Tokenizer


class Sized(Protocol):
    """The config of a search, as far as its branches go."""

    @property
    def num_slots(self) -> int:
        """Branches that a search of one problem may hold at once, its root included."""
        ...


class Started(NamedTuple):
    """A state whose branches hold the prompts."""

    state: State
    roots: Array  # i32[prompts], the branch of each


def start(
    model: Model,
    prompts: Sequence[str] | Sequence[Sequence[int]] | str,
    method: Sized | int = 1,
    *,
    tokenizer: Tokenizer | None = None,
    new_tokens: int | None = None,
    seed: int = 0,
    num_blocks: int | None = None,
    memory_fraction: float = 0.5,
    block_size: int = 16,
    debug: bool = False,
    allow_longer_context: bool = False,
) -> Started:
    """Makes a state with room for a method, and runs prompts through the model.

    What follows is functional: `state, roots = start(...)`, then any search or `engine.generate`.

    Args:
      model: the model.
      prompts: texts, framed as the tokenizer's template says, or lists of token ids as they are; a
        bare text is the only one.
      method: the search's config, or how many branches each prompt may need, its root included.
      tokenizer: encodes texts.
      new_tokens: most tokens that a branch gets after its prompt; None takes the config's
        `max_new_tokens`.
      seed: of the roots' random keys; a root's depends on it and on the prompt's place only.
      num_blocks: blocks of the pool; None takes what all branches at full length use, and no more
        than `memory_fraction` of the device's free memory holds.
      memory_fraction: see num_blocks.
      block_size: tokens a block.
      debug: see `CacheConfig`.
      allow_longer_context: lets prompts and new tokens go beyond the model's `max_position`.

    Raises:
      PromptError: no prompt, or one that is empty, not of this vocabulary or no Unicode.
      ValueError: another argument out of its range.
      CapacityError: not enough blocks for the prompts.
    """
    check_seed(seed)
    rows = encode_prompts(prompts, tokenizer, model.vocab_size)
    slots = whole_number(getattr(method, "num_slots", method), "method", least=1)
    if new_tokens is None:
        new_tokens = getattr(method, "max_new_tokens", None)
    if new_tokens is None:
        raise ValueError(
            "new_tokens is None and the method has no max_new_tokens; say how many tokens a branch "
            "may get"
        )
    new_tokens = whole_number(new_tokens, "new_tokens", least=1)
    if num_blocks is None:
        per_block = kv.block_bytes(model.kv_shape, dtype=model.dtype, block_size=block_size)
        fitting = kv.blocks_for_fraction(memory_fraction, per_block, jax.devices()[0])
        num_blocks = min(fitting, blocks_at_most(rows, slots, new_tokens, block_size))
    config = CacheConfig(
        num_blocks=num_blocks,
        num_slots=len(rows) * slots,
        max_context=max(map(len, rows)) + new_tokens,
        block_size=block_size,
        debug=debug,
    )
    state = compiled().init(model, config=config, allow_longer_context=allow_longer_context)
    numbers = np.zeros(lane_bucket(len(rows)), np.int32)
    numbers[: len(rows)] = range(len(rows))
    words = np.asarray(host_programs().root_keys(np.uint32(seed), numbers))
    state, roots, held = open_prompts(model, state, rows, words)
    if not held.all():
        kv.raise_errors(state.cache)
    return Started(state, jax.device_put(roots))


def encode_prompts(
    prompts: Sequence[str] | Sequence[Sequence[int]] | str,
    tokenizer: Tokenizer | None,
    vocab_size: int,
) -> list[list[int]]:
    """The token ids of each prompt; PromptError for the first that cannot be run."""
    given = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(given, Sequence | np.ndarray) or not len(given):
        raise PromptError(f"prompts is {prompts!r}; it takes a list of texts or of token ids")
    rows = []
    for prompt in given:
        if isinstance(prompt, str):
            if tokenizer is None:
                raise PromptError("tokenizer is None and a prompt is a text; it needs one")
            check_text(prompt)
            rows.append(tokenizer.encode(prompt, add_special_tokens=True))
        else:
            rows.append(prompt_ids(prompt))
        check_prompt(rows[-1], vocab_size)
    return rows


def blocks_at_most(
    prompts: Sequence[Sequence[int]], slots: int, new_tokens: int, block_size: int
) -> int:
    """Blocks that `slots` branches of each prompt, all at full length, hold between them."""
    total = 0
    for prompt in prompts:
        shared = len(prompt) // block_size
        total += shared + slots * (-(-(len(prompt) + new_tokens) // block_size) - shared)
    return total


def open_prompts(
    model: Model, state: State, prompts: Sequence[Sequence[int]], words: np.ndarray
) -> tuple[State, np.ndarray, np.ndarray]:
    """Opens a branch for each prompt and prefills it, prompts of about one length together.

    Args:
      model: the model.
      state: the engine state, donated.
      prompts: token ids, one or more each.
      words: u32[prompts or more, 2], the words of the branches' random keys.

    Returns:
      The state, i32[prompts] branch ids (negative where no slot was left) and bool[prompts], where
      a branch holds its prompt.
    """
    roots = np.full(len(prompts), NO_BRANCH, np.int32)
    held = np.zeros(len(prompts), bool)
    buckets: dict[int, list[int]] = {}
    for place, prompt in enumerate(prompts):
        buckets.setdefault(length_bucket(len(prompt)), []).append(place)
    for length, places in buckets.items():
        lanes = lane_bucket(len(places))
        tokens = np.zeros((lanes, length), np.int32)
        count, keys = np.zeros(lanes, np.int32), np.zeros((lanes, 2), np.uint32)
        for lane, place in enumerate(places):
            count[lane] = len(prompts[place])
            tokens[lane, : count[lane]] = prompts[place]
            keys[lane] = words[place]
        state, ids, ok = host_programs().open_prompts(model, state, keys, tokens, count)
        roots[places], held[places] = (row[: len(places)] for row in jax.device_get((ids, ok)))
    return state, roots, held
