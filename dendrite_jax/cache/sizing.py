"""How many blocks a device has memory for; host side."""

from __future__ import annotations

import os

import jax


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
