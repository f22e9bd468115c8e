"""The public call of verify attention."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.checks import check_heads, check_options, check_pools, check_rows
from dendrite_jax.kernels.dispatch import choose_implementation
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy
from dendrite_jax.kernels.verify_attention import xla

MAX_NODES = 64
"""Most draft tokens of a branch."""


def ancestor_mask(parent: Array) -> Array:
    """Which draft nodes each one sees: itself and its ancestors.

    Args:
      parent: i32[branches, nodes], the node that each continues, before it in the order; negative
        for one that continues the branch itself.

    Returns:
      bool[branches, nodes, nodes], row i true where node i sees node j.
    """
    nodes = parent.shape[1]
    number = jnp.arange(nodes)
    seen = (number[:, None] == number) | (parent[:, :, None] == number)
    for _ in range((nodes - 1).bit_length()):  # each round doubles how far back a node sees
        seen = jnp.einsum("bij,bjk->bik", seen.astype(jnp.float32), seen.astype(jnp.float32)) > 0
    return seen


def verify_attention(
    q: Array,
    k: Array,
    v: Array,
    seen: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    length: Array,
    *,
    scale: float | None = None,
    softcap: float | None = None,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> tuple[Array, Array]:
    """Attention of a tree of draft tokens a branch over its cached prefix and over their ancestors.

    The tree attention of speculative decoding (SpecInfer, Miao et al. 2023). The draft's keys and
    values are not in the pool: only the accepted path needs to be appended afterwards. A prefix
    that branches share is read once for all of them.

    Args:
      q: [branches, nodes, heads, head_dim], after rotary embedding at each node's own position.
      k, v: [branches, nodes, kv_heads, head_dim], the draft tokens' keys and values.
      seen: bool[branches, nodes, nodes], whether node i sees node j; see `ancestor_mask`.
      k_pool, v_pool: [layers, blocks, kv_heads, block_size, head_dim].
      layer: which layer of the pool to read, an int or i32[]; an array's range is not checked.
      table: i32[branches, max_blocks], the physical block of each logical block, −1 for none.
      length: i32[branches], cached tokens, all of which every node sees.
      scale: multiplies the scores; 1/sqrt(head_dim) when None.
      softcap: scores become `softcap * tanh(scores / softcap)`; None leaves them.
      policy: which implementation runs.

    Returns:
      The output [branches, nodes, heads, head_dim] in q's dtype, and the log-sum-exp of the scores
      f32[branches, nodes, heads]. A node that sees nothing gives zeros and −inf.

    Raises:
      ValueError: a branch has more than MAX_NODES nodes, or shapes do not fit together.
      UnsupportedError: the Triton kernels lack the head_dim, block size or dtype.
    """
    _check(q, k, v, seen, k_pool, v_pool, layer, table, length, softcap)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    compute = xla.verify_attention
    if choose_implementation(policy) == "triton":
        from dendrite_jax.kernels.verify_attention import gpu

        compute = gpu.verify_attention
    return compute(
        q, k, v, seen, k_pool, v_pool, layer, table, length, scale=scale, softcap=softcap
    )


def _check(
    q: Array,
    k: Array,
    v: Array,
    seen: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    length: Array,
    softcap: float | None,
) -> None:
    """Raises ValueError for arguments that do not fit together."""
    if q.ndim != 4:
        raise ValueError(f"q has shape {q.shape}, not [branches, nodes, heads, head_dim]")
    branches, nodes, _, _ = q.shape
    if nodes > MAX_NODES:
        raise ValueError(f"q has {nodes} draft nodes a branch; at most {MAX_NODES} are taken")
    check_pools(k_pool, v_pool, layer)
    check_heads("q", q, k_pool)
    draft = (branches, nodes, k_pool.shape[2], k_pool.shape[4])
    wanted = {"k": (k, draft), "v": (v, draft), "seen": (seen, (branches, nodes, nodes))}
    for name, (array, shape) in wanted.items():
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, not {shape}")
    check_rows(branches, table=table, length=length)
    check_options(None, softcap)
