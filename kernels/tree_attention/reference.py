"""Plain-XLA decode attention: one query a lane through the paged-prefill reference."""

from __future__ import annotations

from jax import Array

from dendrite_jax.kernels.paged_prefill.reference import paged_prefill


def tree_attention(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    length: Array,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> tuple[Array, Array]:
    """Specification of `dendrite_jax.kernels.tree_attention.tree_attention`."""
    out, lse = paged_prefill(
        q[:, None],
        k_pool,
        v_pool,
        layer,
        table,
        length - 1,
        scale=scale,
        window=window,
        softcap=softcap,
    )
    return out[:, 0], lse[:, 0]
