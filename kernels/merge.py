"""Merging two partial attentions by their log-sum-exps."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def merge_partials(
    out: Array, lse: Array, other_out: Array, other_lse: Array
) -> tuple[Array, Array]:
    """Attention over the union of two disjoint sets of keys.

    Args:
      out, other_out: [..., head_dim], the attention over each set, in one dtype.
      lse, other_lse: f32[...], the log-sum-exp of each set's scores; −inf for an empty set.

    Returns:
      The attention in `out`'s dtype and its log-sum-exp; zeros and −inf where both are empty.
    """
    peak = jnp.maximum(lse, other_lse)
    finite = jnp.where(jnp.isfinite(peak), peak, 0.0)
    weight, other_weight = jnp.exp(lse - finite), jnp.exp(other_lse - finite)
    total = weight + other_weight
    filled = jnp.where(total > 0, total, 1.0)
    merged = (weight / filled)[..., None] * out + (other_weight / filled)[..., None] * other_out
    return merged.astype(out.dtype), finite + jnp.log(total)
