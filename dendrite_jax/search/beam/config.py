"""The static shape of a beam search over tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jax import Array

from dendrite_jax.search.checks import check_positive


@dataclass(frozen=True)
class BeamSearchConfig:
    """Static shape of the search; scores and stopping follow Hugging Face's `generate`.

    Attributes:
      width: beams a problem.
      max_new_tokens: most tokens a beam gets.
      length_penalty: α. A finished beam's score is its log-probability / length ** α.
      gnmt: divides by ((5 + length) / 6) ** α instead (Wu et al. 2016).
      early_stopping: True stops as soon as all beams have finished. False goes on until the best
        running beam, scored at its present length, is worse than every finished one; "never" scores
        it at the length, up to `max_new_tokens`, that is best for it.
      groups: the beams are so many equal groups, each a beam search of its own, that stay apart by
        the diversity penalty (Vijayakumar et al. 2016).
      diversity_penalty: what a token costs a beam for each beam of the groups before it that takes
        it in the same token step; the cost stays with the beam.
    """

    width: int = 4
    max_new_tokens: int = 64
    length_penalty: float = 1.0
    gnmt: bool = False
    early_stopping: bool | Literal["never"] = False
    groups: int = 1
    diversity_penalty: float = 0.0

    def __post_init__(self) -> None:
        check_positive(self, "width", "max_new_tokens", "groups")
        if self.early_stopping not in (True, False, "never"):
            raise ValueError(
                f'early_stopping is {self.early_stopping!r}; it must be True, False or "never"'
            )
        if self.width % self.groups:
            raise ValueError(
                f"width is {self.width}; it must be a multiple of groups, {self.groups}"
            )
        if not math.isfinite(self.length_penalty):
            raise ValueError(f"length_penalty is {self.length_penalty}; it must be finite")
        if not 0 <= self.diversity_penalty < math.inf:
            raise ValueError(
                f"diversity_penalty is {self.diversity_penalty}; it must be at least 0 and finite"
            )

    @property
    def num_nodes(self) -> int:
        """Nodes of a full tree, the root included: what each token step runs on or ends."""
        return 1 + self.max_new_tokens * 2 * self.width

    @property
    def num_slots(self) -> int:
        """Branches that one problem holds at once, its root included."""
        return 1 + 2 * self.width

    def score(self, logprob: Array, length: Array | int) -> Array:
        """f32[...] scores of beams of log-probability f32[...] and length i32[...]."""
        size = jnp.asarray(length, jnp.float32)
        return logprob / ((5.0 + size) / 6.0 if self.gnmt else size) ** self.length_penalty
