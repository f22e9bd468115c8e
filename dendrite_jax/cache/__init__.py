"""The paged key-value cache whose branches fork by copying a block-table row."""

from dendrite_jax.cache.append import Appended, append
from dendrite_jax.cache.branches import fork, free, open_branches, truncate
from dendrite_jax.cache.codec import (
    Codec,
    GroupShape,
    Identity,
    KVShape,
    LayerGroup,
    StoredArray,
    block_bytes,
    uniform_shape,
)
from dendrite_jax.cache.errors import BranchError, CapacityError, find_error, raise_errors
from dendrite_jax.cache.lanes import flag_branches
from dendrite_jax.cache.ledger import Ledger
from dendrite_jax.cache.resize import resize
from dendrite_jax.cache.sizing import blocks_for_fraction
from dendrite_jax.cache.state import (
    BAD_LOGITS,
    BAD_TOKEN,
    NO_BRANCH,
    Cache,
    CacheConfig,
    KVPool,
    init,
)
from dendrite_jax.cache.stats import CacheStats, stats

__all__ = [
    "BAD_LOGITS",
    "BAD_TOKEN",
    "NO_BRANCH",
    "Appended",
    "BranchError",
    "Cache",
    "CacheConfig",
    "CacheStats",
    "CapacityError",
    "Codec",
    "GroupShape",
    "Identity",
    "KVPool",
    "KVShape",
    "LayerGroup",
    "Ledger",
    "StoredArray",
    "append",
    "block_bytes",
    "blocks_for_fraction",
    "find_error",
    "flag_branches",
    "fork",
    "free",
    "init",
    "open_branches",
    "raise_errors",
    "resize",
    "stats",
    "truncate",
    "uniform_shape",
]
