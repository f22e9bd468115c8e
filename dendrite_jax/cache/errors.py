"""Turning the flags of a cache into exceptions; host side."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from dendrite_jax.cache.state import (
    BAD_LENGTH,
    BAD_LOGITS,
    BAD_TOKEN,
    CONTEXT_FULL,
    COUNT_TOO_LARGE,
    DUPLICATE_BRANCH,
    EMPTY_BRANCH,
    GUARD_COUNT,
    OUT_OF_BLOCKS,
    OUT_OF_SLOTS,
    SLOT_IN_USE,
    STALE_BRANCH,
    UNKNOWN_BRANCH,
    Cache,
)


class CapacityError(RuntimeError):
    """A capacity of the cache was too small; the message names the knob and the number needed."""


class BranchError(ValueError):
    """A call could not use a branch as it was asked to."""


def raise_errors(cache: Cache) -> None:
    """Raises what `find_error` finds, if anything; reads the device."""
    error = find_error(cache)
    if error is not None:
        raise error


def find_error(
    cache: Cache, branches: Sequence[int] | None = None
) -> CapacityError | BranchError | None:
    """The first error that a cache's flags tell of; reads the device.

    Args:
      cache: the cache.
      branches: looks at the flags of these branches only; None looks at all.

    Returns:
      A CapacityError when a branch stopped for want of blocks or context or no slot was left, a
      BranchError when a branch was given a token outside the vocabulary or its model gave no
      distribution, or when a call named a branch that is not held or one branch twice, gave one
      fewer tokens than it said, kept more than it holds, or asked what follows one that is empty
      or cut, else None.
    """
    misuse, error, alive, length, ref_count, short = jax.device_get(
        (
            cache.misuse,
            cache.error,
            cache.alive,
            cache.length,
            cache.pool.ref_count,
            cache.blocks_short,
        )
    )
    watched = np.arange(error.size) if branches is None else np.asarray(branches, int)
    starved = watched[error[watched] & OUT_OF_BLOCKS > 0]
    if starved.size:
        usable = int(np.sum(ref_count < GUARD_COUNT))
        return CapacityError(
            f"branches {starved.tolist()} stopped: num_blocks is {usable} and at least "
            f"{usable + int(short)} are needed"
        )
    full = watched[error[watched] & CONTEXT_FULL > 0]
    if full.size:
        return CapacityError(
            f"branches {full.tolist()} stopped at {length[full].tolist()} tokens: max_context is "
            f"{cache.max_context} and must hold the prompt and every new token"
        )
    misfed = watched[error[watched] & BAD_TOKEN > 0]
    if misfed.size:
        return BranchError(
            f"branches {misfed.tolist()} were given a token outside the model's vocabulary"
        )
    senseless = watched[error[watched] & BAD_LOGITS > 0]
    if senseless.size:
        return BranchError(
            f"branches {senseless.tolist()} stopped: the model's logits for their next token are "
            "NaN or infinite"
        )
    if misuse & OUT_OF_SLOTS:
        return CapacityError(
            f"no slot was left for a new branch: num_slots is {cache.num_slots}, "
            f"{int(alive.sum())} are held"
        )
    if misuse & SLOT_IN_USE:
        return BranchError("fork was given a child slot that is in use, repeated or out of range")
    if misuse & DUPLICATE_BRANCH:
        return BranchError("a call named the same branch twice")
    if misuse & UNKNOWN_BRANCH:
        return BranchError("a call named a branch that is not held (never opened, or freed before)")
    if misuse & COUNT_TOO_LARGE:
        return BranchError("append was told to take more tokens than it was given")
    if misuse & BAD_LENGTH:
        return BranchError(
            "fork or truncate was told to keep more tokens than the branch holds, or fewer than 0"
        )
    if misuse & STALE_BRANCH:
        return BranchError(
            "a call asked what follows a branch that has no last hidden state: it holds no token, "
            "or fork or truncate cut it; engine.rewind runs its last token again"
        )
    if misuse & EMPTY_BRANCH:
        return BranchError("a search was given a root without a token: its prompt is empty")
    return None
