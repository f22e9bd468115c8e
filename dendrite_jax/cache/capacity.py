"""Sizing a cache from memory, and turning its flags into exceptions; host side."""

from __future__ import annotations

import os
from collections.abc import Sequence

import jax
import numpy as np

from dendrite_jax.cache.state import (
    CONTEXT_FULL,
    COUNT_TOO_LARGE,
    DUPLICATE_BRANCH,
    EMPTY_BRANCH,
    GUARD_COUNT,
    OUT_OF_BLOCKS,
    OUT_OF_SLOTS,
    SLOT_IN_USE,
    UNKNOWN_BRANCH,
    Cache,
)
from dendrite_jax.kernels.blocks import BLOCK_SIZE


class CapacityError(RuntimeError):
    """A capacity of the cache was too small; the message names the knob and the number needed."""


class BranchError(ValueError):
    """A call could not use a branch as it was asked to."""


def block_bytes(
    *,
    num_layers: int,
    num_kv_heads: int,
    head_dim: int,
    dtype: jax.typing.DTypeLike,
    block_size: int = BLOCK_SIZE,
) -> int:
    """Bytes of one block: the keys and values of `block_size` tokens in every layer."""
    item = np.dtype(dtype).itemsize
    return 2 * num_layers * num_kv_heads * block_size * head_dim * item


def blocks_for_fraction(fraction: float, bytes_per_block: int, device: jax.Device) -> int:
    """Blocks that fit in `fraction` of the device's free memory.

    Raises:
      ValueError: the fraction is not in (0, 1], or not even one block fits.
    """
    if not 0.0 < fraction <= 1.0:
        raise ValueError(f"memory_fraction is {fraction}; it must be in (0, 1]")
    free = free_bytes(device)
    blocks = int(free * fraction) // bytes_per_block
    if blocks < 1:
        raise ValueError(
            f"memory_fraction {fraction} of {free} free bytes is less than one block "
            f"of {bytes_per_block} bytes"
        )
    return blocks


def free_bytes(device: jax.Device) -> int:
    """Free memory of a device, or of the machine where the device keeps no account (CPU)."""
    account = device.memory_stats()
    if account and "bytes_limit" in account:
        return account["bytes_limit"] - account["bytes_in_use"]
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


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
      BranchError when a call named a branch that is not held or one branch twice, gave one
      fewer tokens than it said or searched from one without any, else None.
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
    if misuse & EMPTY_BRANCH:
        return BranchError("a search was given a root without a token: its prompt is empty")
    return None
