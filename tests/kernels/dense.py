"""Dense float64 attention: the oracle of the attention kernels."""

from __future__ import annotations

import numpy as np


def dense_attention(q, keys, values, positions, start, *, scale, window=None, softcap=None):
    """Queries [n, heads, D] at positions `start + i` over keys [m, kv_heads, D] at `positions`.

    Returns the output [n, heads, D] and the log-sum-exp of the scores [n, heads], in float64.
    """
    q, keys, values = (np.asarray(array, np.float64) for array in (q, keys, values))
    group = q.shape[1] // keys.shape[1]
    keys, values = (np.repeat(array, group, axis=1) for array in (keys, values))
    scores = scale * np.einsum("nhd,mhd->nhm", q, keys)
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    here = start + np.arange(len(q))[:, None]
    seen = positions <= here
    if window is not None:
        seen &= positions > here - window
    scores = np.where(seen[:, None], scores, -np.inf)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - peak)
    total = weights.sum(-1, keepdims=True)
    out = np.einsum("nhm,mhd->nhd", weights / total, values)
    return out, (peak + np.log(total))[..., 0]


def tree_oracle(q, k_pool, v_pool, layer, tree, **options):
    """Decode attention of every lane of a `trees.Tree`; idle lanes give 0 and −inf."""
    out = np.zeros(q.shape)
    lse = np.full(q.shape[:2], -np.inf)
    for lane, n in enumerate(tree.length):
        if n == 0:
            continue
        blocks = tree.table[lane, : -(-n // 16)]

        def tokens(pool, blocks=blocks, n=n):
            pool = np.asarray(pool[layer], np.float64)[blocks]  # [blocks, kv_heads, 16, D]
            return np.moveaxis(pool, 1, 2).reshape(-1, *pool.shape[1:2], pool.shape[-1])[:n]

        got = dense_attention(
            q[lane : lane + 1], tokens(k_pool), tokens(v_pool), np.arange(n), n - 1, **options
        )
        out[lane], lse[lane] = got[0][0], got[1][0]
    return out, lse
