"""What runs where: the only place that reads the platform, and the `KernelPolicy` beside it."""

from __future__ import annotations

import importlib.util

import jax

from dendrite_jax.kernels.policy import Implementation, KernelPolicy

PREFILL_CHUNK = 512
"""Tokens a lane that prefill runs through the model at once; on a GPU more, if lanes are few."""
GPU_CHUNK_TOKENS = 4096
"""Tokens of all lanes together that fill a GPU's matrix products."""

_BY_PLATFORM: dict[str, Implementation] = {"gpu": "triton", "cpu": "xla"}


class UnsupportedError(NotImplementedError):
    """A kernel lacks a case; the message gives the reason and names the way around it."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"{reason}; KernelPolicy(implementation='xla') runs the plain-XLA twin instead"
        )


def choose_implementation(policy: KernelPolicy) -> Implementation:
    """The implementation that kernels run under a policy.

    Raises:
      UnsupportedError: the policy names none and the platform is one that none was written for, or
        it is Triton, which is not installed.
    """
    chosen = policy.implementation or _platform_implementation()
    if chosen == "triton" and importlib.util.find_spec("triton") is None:
        raise UnsupportedError("implementation 'triton': Triton is not installed")
    return chosen


def prefill_chunk(policy: KernelPolicy, lanes: int) -> int:
    """Tokens a lane that prefill runs through the model at once.

    The policy's, or PREFILL_CHUNK; on a GPU what brings all lanes together to GPU_CHUNK_TOKENS, if
    that is more.
    """
    if policy.prefill_chunk is not None:
        return policy.prefill_chunk
    if jax.default_backend() == "gpu":
        return max(PREFILL_CHUNK, GPU_CHUNK_TOKENS // lanes)
    return PREFILL_CHUNK


def _platform_implementation() -> Implementation:
    """The implementation of the default backend's platform."""
    platform = jax.default_backend()
    if platform not in _BY_PLATFORM:
        raise UnsupportedError(
            f"no kernels for platform {platform!r}: they exist for {sorted(_BY_PLATFORM)}"
        )
    return _BY_PLATFORM[platform]
