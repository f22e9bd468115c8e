"""Which implementation of a kernel runs: the platform's, or the one that the caller names."""

from __future__ import annotations

import importlib.util

import jax

IMPLEMENTATIONS = ("triton", "xla")
_BY_PLATFORM = {"gpu": "triton", "cpu": "xla"}


class UnsupportedError(NotImplementedError):
    """A kernel lacks a case; the message gives the reason and names the way around it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; implementation='xla' runs the plain-XLA twin instead")


def choose_implementation(requested: str | None) -> str:
    """Resolves an `implementation` argument.

    Args:
      requested: "triton", "xla", or None for what the default backend runs (GPU: Triton, CPU: XLA).

    Returns:
      One of `IMPLEMENTATIONS`.

    Raises:
      ValueError: for an unknown name.
      UnsupportedError: for None on a platform that no implementation was written for, and for
        "triton" where Triton is not installed.
    """
    chosen = _platform_implementation() if requested is None else requested
    if chosen not in IMPLEMENTATIONS:
        raise ValueError(f"implementation {chosen!r} is not one of {IMPLEMENTATIONS}")
    if chosen == "triton" and importlib.util.find_spec("triton") is None:
        raise UnsupportedError("implementation 'triton': Triton is not installed")
    return chosen


def _platform_implementation() -> str:
    """The implementation of the default backend's platform."""
    platform = jax.default_backend()
    if platform not in _BY_PLATFORM:
        raise UnsupportedError(
            f"no kernels for platform {platform!r}: they exist for {sorted(_BY_PLATFORM)}"
        )
    return _BY_PLATFORM[platform]
