"""The public call of paged prefill attention."""

from __future__ import annotations

from collections.abc import Callable

from jax import Array

from dendrite_jax.kernels.checks import check_heads, check_options, check_pools, check_rows
from dendrite_jax.kernels.dispatch import choose_implementation
from dendrite_jax.kernels.paged_prefill import xla
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy


def paged_prefill(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    start: Array,
    length: Array | None = None,
    *,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> tuple[Array, Array]:
    """Attention of several new tokens a row over the row's cached prefix and over each other.

    The keys and values of the new tokens are already in the pool (`append_kv` comes first).

    Args:
      q: [rows, queries, heads, head_dim], after rotary embedding. Query i of a row stands at
        position `start[row] + i`.
      k_pool, v_pool: [layers, blocks, kv_heads, block_size, head_dim].
      layer: which layer of the pool to read, an int or i32[]; an array's range is not checked.
      table: i32[rows, max_blocks], the physical block of each logical block, −1 for none,
        which stand after the row's last block.
      start: i32[rows], the position of the first query.
      length: i32[rows], the tokens that a row holds, the new ones included: what lies beyond in
        its last block is not read, nor seen by the queries that stand there. As many as the row's
        blocks take when None.
      scale: multiplies the scores; 1/sqrt(head_dim) when None.
      window: a query sees only the last `window` positions, its own included; None sees all.
      softcap: scores become `softcap * tanh(scores / softcap)`; None leaves them.
      policy: which implementation runs.

    Returns:
      The output [rows, queries, heads, head_dim] in q's dtype, and the log-sum-exp of the scores
      f32[rows, queries, heads]. A query that sees nothing gives zeros and −inf.

    Raises:
      ValueError: shapes or options that do not fit together.
      UnsupportedError: the Triton kernel lacks the head_dim, block size or dtype.
    """
    if q.ndim != 4:
        raise ValueError(f"q has shape {q.shape}, not [rows, queries, heads, head_dim]")
    check_pools(k_pool, v_pool, layer)
    check_heads("q", q, k_pool)
    lengths = {} if length is None else {"length": length}
    check_rows(q.shape[0], table=table, start=start, **lengths)
    check_options(window, softcap)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    compute: Callable[..., tuple[Array, Array]] = xla.paged_prefill
    if choose_implementation(policy) == "triton":
        from dendrite_jax.kernels.paged_prefill import gpu

        compute = gpu.paged_prefill
    return compute(
        q, k_pool, v_pool, layer, table, start, length, scale=scale, window=window, softcap=softcap
    )
