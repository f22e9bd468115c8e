"""How large the workloads of `dendrite bench tree` are, and what a peer's batches add up to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dendrite_jax.cache import CacheConfig
from dendrite_jax.cache.append import blocks_per_lane


@dataclass(frozen=True)
class TreeSizes:
    """Sizes of the two workloads: rounds that grow and thin out, and complete trees.

    Attributes:
      prompt: tokens before the first round; one of `prefixes`.
      prefixes: tokens at the root of each complete tree.
      thought: tokens sampled for a node.
      rounds: (keep, width) pairs; a round grows each of `keep` branches in `width` ways.
      num_rounds: rounds in a row, the first one from the prompt alone.
      depth: levels of a complete tree below its root.
      branching: children of each of its nodes.
      batch_tokens: tokens of cache that a batch of a peer may hold, which bounds its branches.
    """

    prompt: int
    prefixes: tuple[int, ...]
    thought: int
    rounds: tuple[tuple[int, int], ...]
    num_rounds: int
    depth: int
    branching: int
    batch_tokens: int

    def __post_init__(self) -> None:
        for field in ("thought", "num_rounds", "depth", "branching"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}; it must be at least 1")
        if self.prompt not in self.prefixes:
            raise ValueError(f"prompt is {self.prompt}; it must be one of {self.prefixes}")
        least = max(4, self.branching) * max(self.prefixes)  # a node's children, a prefill's rows
        if self.batch_tokens < least:
            raise ValueError(f"batch_tokens is {self.batch_tokens}; it must be at least {least}")

    @property
    def piece(self) -> int:
        """Tokens of a prompt that one call prefills: divides every prompt, so one program does."""
        return math.gcd(*self.prefixes)

    @property
    def level_thoughts(self) -> tuple[int, ...]:
        """Nodes at each level of a complete tree."""
        return tuple(self.branching ** (level + 1) for level in range(self.depth))

    @property
    def program_lanes(self) -> tuple[int, ...]:
        """Lanes that programs are compiled for; a level that fits none fills the next larger."""
        rounds = {keep * width for keep, width in self.rounds}
        levels = {count for count in self.level_thoughts if count > min(rounds)}
        return tuple(sorted(rounds | levels))

    @property
    def cache_config(self) -> CacheConfig:
        """Room for either workload; a node takes no more blocks than one branch of its tokens."""
        block_size = CacheConfig.block_size
        longest = max(self.prefixes) + self.thought * self.depth
        longest = max(longest, self.prompt + self.thought * self.num_rounds)
        kept = max(keep * self.num_rounds + keep * width for keep, width in self.rounds)
        nodes = max(sum(self.level_thoughts), kept)
        lanes = self.program_lanes[-1]
        return CacheConfig(
            num_blocks=-(-max(self.prefixes) // block_size)
            + nodes * blocks_per_lane(self.thought, block_size),
            num_slots=2 * lanes,
            max_context=longest,
        )

    def batch_lanes(self, prefix: int) -> int:
        """Branches that a batch of a peer holds after a prefix."""
        return self.batch_tokens // prefix


H100 = TreeSizes(
    prompt=4096,
    prefixes=(1024, 4096),
    thought=32,
    rounds=((4, 4), (8, 8), (16, 16)),
    num_rounds=6,
    depth=5,
    branching=4,
    batch_tokens=131072,  # 17 GB of the 8B shape: parents, children and weights fit in 80 GB
)
CPU = TreeSizes(
    prompt=512,
    prefixes=(512,),
    thought=16,
    rounds=((4, 4), (8, 8)),
    num_rounds=4,
    depth=3,
    branching=4,
    batch_tokens=32768,
)


class BatchCost(NamedTuple):
    """What a peer took for one batch of branches, everything it had to do first included."""

    lanes: int
    seconds: float


def tree_seconds(sizes: TreeSizes, costs: Sequence[BatchCost]) -> float:
    """Seconds of a complete tree from one batch of each level."""
    levels = zip(sizes.level_thoughts, costs, strict=True)
    return sum(math.ceil(count / cost.lanes) * cost.seconds for count, cost in levels)


def round_seconds(lanes: int, costs: Sequence[BatchCost]) -> float:
    """Seconds of a round of `lanes` branches, from the last batch that is no larger."""
    cost = [cost for cost in costs if cost.lanes <= lanes][-1]
    return math.ceil(lanes / cost.lanes) * cost.seconds
