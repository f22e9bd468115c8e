"""A model that can be computed by hand: the next token depends on the last one only."""

from __future__ import annotations

import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache import Appended, KVPool, KVShape, uniform_shape
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy


class BigramModel(struct.PyTreeNode):
    """Logits are rows of a table; the cache keeps its books but holds no keys worth reading."""

    table: Array  # f32[vocab, vocab], logits of the next token by the last one

    @property
    def dtype(self) -> jnp.dtype:
        return self.table.dtype

    @property
    def vocab_size(self) -> int:
        return self.table.shape[0]

    @property
    def hidden_size(self) -> int:
        return self.table.shape[0]

    @property
    def kv_shape(self) -> KVShape:
        return uniform_shape(num_layers=1, num_kv_heads=1, head_dim=1)

    @property
    def max_position(self) -> None:
        return None  # as much context as there is room for

    @property
    def policy(self) -> KernelPolicy:
        return DEFAULT_POLICY

    def forward(self, pool: KVPool, appended: Appended, tokens: Array) -> tuple[KVPool, Array]:
        """The pool as it was, and the row of each token, f32[lanes, tokens, vocab]."""
        return pool, self.table[tokens]

    def unembed(self, hidden: Array) -> Array:
        return hidden
