"""A model that writes lines from a given list, and judges them as it is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import Array

from dendrite_jax.cache import Appended, KVPool, KVShape, uniform_shape
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy

ELSEWHERE = 0
"""The node of every text that is not in the trie."""
ROOT = 1


class TrieModel(struct.PyTreeNode):
    """The next token depends on where the branch's whole text stands in a trie.

    The text is read from the token ids in the pool; keys and values stay as they are.
    """

    next_node: Array  # i32[nodes, vocab], ELSEWHERE where the trie does not go on
    logits: Array  # f32[nodes, vocab]

    @property
    def dtype(self) -> jnp.dtype:
        return self.logits.dtype

    @property
    def vocab_size(self) -> int:
        return self.logits.shape[1]

    @property
    def hidden_size(self) -> int:
        return 1

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
        """The pool as it was, and the node of each token, f32[lanes, tokens, 1]."""
        lanes, count = tokens.shape
        text = pool.tokens[jnp.maximum(appended.table, 0)].reshape(lanes, -1)

        def walk(node: Array, column: Array) -> tuple[Array, Array]:
            node = self.next_node[node, column]
            return node, node

        _, nodes = jax.lax.scan(walk, jnp.full(lanes, ROOT), text.T)
        position = appended.start[:, None] + jnp.arange(count)
        position = jnp.minimum(position, text.shape[1] - 1)
        here = jnp.take_along_axis(nodes.T, position, axis=1)
        return pool, here[:, :, None].astype(self.dtype)

    def unembed(self, hidden: Array) -> Array:
        return self.logits[hidden[..., 0].astype(jnp.int32)]


def build_trie(
    texts: Sequence[Sequence[int]],
    logits_after: Mapping[tuple[int, ...], Mapping[int, float]],
    vocab_size: int,
) -> TrieModel:
    """A model that writes one of some token sequences, all with the same chance.

    Args:
      texts: whole texts as token ids; each starts where a prompt starts.
      logits_after: logits of some tokens after some beginnings of the texts, in place of that.
      vocab_size: of the tokenizer.
    """
    nodes: dict[tuple[int, ...], int] = {(): ROOT}
    passes: Counter[tuple[int, int, int]] = Counter()  # texts through (node, token, child)
    for text in texts:
        for end in range(1, len(text) + 1):
            beginning = tuple(text[:end])
            node = nodes.setdefault(beginning, len(nodes) + 1)
            passes[nodes[beginning[:-1]], beginning[-1], node] += 1
    next_node = np.full((len(nodes) + 1, vocab_size), ELSEWHERE, np.int32)
    logits = np.full((len(nodes) + 1, vocab_size), -30.0, np.float32)
    for (node, token, child), count in passes.items():
        next_node[node, token] = child
        logits[node, token] = np.log(count)
    for beginning, chosen in logits_after.items():
        for token, logit in chosen.items():
            logits[nodes[beginning], token] = logit
    return TrieModel(jnp.asarray(next_node), jnp.asarray(logits))
