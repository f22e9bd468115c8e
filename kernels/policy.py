"""How kernels are to run, as one value that goes with a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Implementation = Literal["triton", "xla"]
IMPLEMENTATIONS: tuple[Implementation, ...] = get_args(Implementation)


@dataclass(frozen=True)
class KernelPolicy:
    """What a caller may choose about kernels; hashable, a static argument of jitted functions.

    `dispatch` alone reads it, together with the platform where it leaves a choice open.

    Raises:
      ValueError: a field has a value that it can not have.
    """

    implementation: Implementation | None = None
    """"triton", "xla", or None for the platform's (GPU: Triton, CPU: XLA)."""
    prefill_chunk: int | None = None
    """Tokens a lane that prefill runs through a model at once; None for the platform's."""

    def __post_init__(self) -> None:
        if self.implementation is not None and self.implementation not in IMPLEMENTATIONS:
            raise ValueError(
                f"implementation is {self.implementation!r}, which is not one of {IMPLEMENTATIONS}"
            )
        if self.prefill_chunk is not None and self.prefill_chunk < 1:
            raise ValueError(
                f"prefill_chunk is {self.prefill_chunk}; it must be at least 1, "
                "or None for the platform's"
            )


DEFAULT_POLICY = KernelPolicy()
"""The platform's choices."""
