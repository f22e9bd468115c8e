"""A bigram model whose table depends on the position, so that no two sequences tie."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax.cache import Appended, KVPool
from dendrite_jax.testing import BigramModel
from models.tiny_models import uniform
from search.programs import CACHE


class PositionalModel(BigramModel):
    """`table` is f32[positions, vocab, vocab]: logits of the next token by position and token."""

    @property
    def vocab_size(self) -> int:
        return self.table.shape[-1]

    @property
    def hidden_size(self) -> int:
        return self.table.shape[-1]

    def forward(
        self, pool: KVPool, appended: Appended, tokens: jax.Array
    ) -> tuple[KVPool, jax.Array]:
        position = appended.start[:, None] + jnp.arange(tokens.shape[1])
        return pool, self.table[position, tokens]


def random_table(seed: int, vocab: int, holes: bool = False) -> np.ndarray:
    """Random logits; `holes` makes a third of the transitions impossible."""
    shape = (CACHE.max_context, vocab, vocab)
    logits = 3 * uniform(seed, "table", shape)
    blocked = (uniform(seed, "holes", shape) < -1 / 3) & ~np.eye(vocab, dtype=bool)
    return np.where(blocked & holes, np.float32(-np.inf), logits)
