"""Pieces that the Triton attention kernels share: scores in base 2, and one step of online softmax.

Online softmax (Milakov & Gimelshein 2018) as in FlashAttention (Dao 2023): a running peak, a sum of
weights, and an accumulator that is scaled down whenever the peak rises.
"""

from __future__ import annotations

import triton
import triton.language as tl

from dendrite_jax.kernels.blocks import BLOCK_SIZE

BLOCK = tl.constexpr(BLOCK_SIZE)
"""Tokens in a block, for kernels."""
LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LOWEST = tl.constexpr(-1.0e30)
"""Where a peak starts: stands for minus infinity, but differences of it are not NaN."""
UNSEEN = tl.constexpr(float("-inf"))
"""Score of a key that a row does not see: nothing even beside the lowest peak."""


@triton.jit
def scaled(scores, scale: tl.constexpr, softcap: tl.constexpr):
    """Scores in base-2 exponents: scaled, then soft-capped if `softcap` is not 0."""
    if softcap > 0:
        squashed = 1.0 - 2.0 / (1.0 + tl.exp2(scores * (2.0 * LOG2E * scale / softcap)))
        scores = squashed * (softcap * LOG2E)
    else:
        scores = scores * (scale * LOG2E)
    return scores


@triton.jit
def add_keys(scores, v, peak, total, acc, PRECISION: tl.constexpr):
    """Adds some keys to the running softmax of [rows]: scores [rows, keys], v [keys, D].

    Scores are `scaled`, and UNSEEN where a row does not see a key.
    """
    higher = tl.maximum(peak, tl.max(scores, 1))
    shrink = tl.exp2(peak - higher)
    weights = tl.exp2(scores - higher[:, None])
    total = total * shrink + tl.sum(weights, 1)
    acc = tl.dot(weights.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
    return higher, total, acc
