"""Dense float64 attention: the oracle of the attention kernels."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

BLOCK = 16

BOUNDS = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}
"""Largest relative error by dtype, ‖got − oracle‖ / ‖oracle‖.

Rounding the softmax weights and the output costs at most half a unit in the last place each, 2⁻¹⁰
together in float16 and 2⁻⁷ in bfloat16; in float32 the sums cost more than that.
"""


def dense_attention(
    q: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    seen: np.ndarray,
    *,
    scale: float | None = None,
    softcap: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Queries [n, heads, D] over keys and values [m, kv_heads, D] where `seen` [n, m].

    Returns:
      The output [n, heads, D] and the log-sum-exp of the scores [n, heads]; 0 and −inf for a query
      that sees nothing.
    """
    group = q.shape[1] // keys.shape[1]
    keys, values = (np.repeat(array, group, axis=1) for array in (keys, values))
    scores = np.einsum("nhd,mhd->nhm", q, keys) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
    out = np.zeros(q.shape)
    lse = np.full(q.shape[:2], -np.inf)
    for query in np.flatnonzero(seen.any(axis=1)):
        weights = np.exp(scores[query][:, seen[query]])  # small scores: nothing overflows
        total = weights.sum(axis=1, keepdims=True)
        out[query] = np.einsum("hm,mhd->hd", weights / total, values[seen[query]])
        lse[query] = np.log(total[:, 0])
    return out, lse


def cached(pool: np.ndarray, layer: int, row: np.ndarray, length: int) -> np.ndarray:
    """The tokens [length, kv_heads, D] that a table row names in one layer of a pool."""
    blocks = pool[layer, row[: -(-length // BLOCK)]]  # [blocks, kv_heads, 16, D]
    tokens = np.moveaxis(blocks, 1, 2)
    return tokens.reshape(-1, *tokens.shape[2:])[:length]


def causal(queries: int, start: int, window: int | None = None) -> np.ndarray:
    """What queries at `start + i` see of the tokens up to the last of them."""
    position = start + np.arange(queries)[:, None]
    key = np.arange(start + queries)
    return (key <= position) & (key > position - (window or start + queries))


def paged_oracle(
    q: np.ndarray,
    k_pool: np.ndarray,
    v_pool: np.ndarray,
    layer: int,
    table: np.ndarray,
    start: np.ndarray,
    *,
    window: int | None = None,
    **options: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Queries [rows, n, heads, D] over each row's cached tokens, causally."""
    out = np.zeros(q.shape)
    lse = np.full(q.shape[:3], -np.inf)
    for row, first in enumerate(start):
        end = first + q.shape[1]
        if end > 0:
            keys, values = (cached(pool, layer, table[row], end) for pool in (k_pool, v_pool))
            seen = causal(q.shape[1], first, window)
            out[row], lse[row] = dense_attention(q[row], keys, values, seen, **options)
    return out, lse


def assert_close(
    got: tuple[jax.Array, jax.Array], want: tuple[np.ndarray, np.ndarray], dtype: str
) -> None:
    """Compares outputs by the norm of their difference, and log-sum-exps one by one."""
    bound = BOUNDS[dtype]
    out = np.asarray(got[0], np.float64)
    assert got[0].dtype == dtype
    assert np.isfinite(out).all()
    assert not out[np.isneginf(want[1])].any()  # what sees nothing gives zeros
    error = float(np.linalg.norm(out - want[0])) / max(float(np.linalg.norm(want[0])), 1e-30)
    assert error <= bound
    np.testing.assert_allclose(np.asarray(got[1]), want[1], rtol=0, atol=10 * bound)


def wide(array: jax.Array) -> np.ndarray:
    """An operand as the kernels see it, in float64."""
    return np.asarray(array, np.float64)
