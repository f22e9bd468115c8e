"""The public calls of tree attention: the plan of a step, and the attention of a layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.kernels.checks import check_heads, check_options, check_pools, check_rows
from dendrite_jax.kernels.dispatch import choose_implementation
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy
from dendrite_jax.kernels.tree_attention import xla
from dendrite_jax.kernels.tree_attention.plan import Plan, held_blocks


def make_plan(
    table: Array,
    length: Array,
    k_pool: Array,
    num_heads: int,
    *,
    window: int | None = None,
    previous: Plan | None = None,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> Plan | None:
    """Plans which program reads which block, once for all layers of a decode step, inside jit.

    A plan stays valid while tables and the number of blocks that each lane holds stay the same;
    with a window, lengths must stay the same too.

    Args:
      table: i32[lanes, max_blocks], the physical block of each logical block, −1 for none.
      length: i32[lanes], cached tokens of the lane, the new one included; 0 for an idle lane.
      k_pool: [layers, blocks, kv_heads, block_size, head_dim]; only its shape and dtype count.
      num_heads: query heads.
      window: sliding window of the layers that will use the plan, None for full attention.
      previous: an earlier plan for tables of this shape, returned where it still fits; with a
        window every step has its own.
      policy: as in `tree_attention`.

    Returns:
      The plan, or None for the XLA implementation, which needs none.

    Raises:
      ValueError: shapes or a window that do not fit together, or a previous plan that was made for
        tables of another shape, another window or another number of heads.
      UnsupportedError: the Triton kernels lack the head_dim, block size or dtype, or a table is
        wider than a plan can number.
    """
    check_rows(table.shape[0], table=table, length=length)
    check_options(window, None)
    if choose_implementation(policy) == "xla":
        return None
    from dendrite_jax.kernels.tree_attention import gpu

    def build() -> Plan:
        return gpu.make_plan(table, length, k_pool, num_heads, window)

    if previous is not None:
        _check_plan(previous, table, window, num_heads // k_pool.shape[2])
    if previous is None or window is not None:
        return build()
    fits = jnp.array_equal(previous.table, held_blocks(table, length))
    return jax.lax.cond(fits, lambda: previous, build)


def tree_attention(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    length: Array,
    *,
    plan: Plan | None = None,
    scale: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
    policy: KernelPolicy = DEFAULT_POLICY,
) -> tuple[Array, Array]:
    """Attention of one new token a lane over the lane's cached tokens, itself included.

    Args:
      q: [lanes, heads, head_dim], after rotary embedding.
      k_pool, v_pool: [layers, blocks, kv_heads, block_size, head_dim].
      layer: which layer of the pool to read, an int or i32[]; an array's range is not checked.
      table: i32[lanes, max_blocks], the physical block of each logical block, −1 for none. Lanes
        that share a prefix name the same blocks.
      length: i32[lanes], cached tokens of the lane, the new one included; 0 for an idle lane.
      plan: what `make_plan` gave for this table, length and window; made here when None.
      scale: multiplies the scores; 1/sqrt(head_dim) when None.
      window: only the last `window` tokens are seen, the new one included; None sees all.
      softcap: scores become `softcap * tanh(scores / softcap)`; None leaves them.
      policy: which implementation runs.

    Returns:
      The output [lanes, heads, head_dim] in q's dtype, and the log-sum-exp of the scores
      f32[lanes, heads]. An idle lane gives zeros and −inf.

    Raises:
      ValueError: shapes or options that do not fit together, or a plan that was made for tables
        of another shape, another window or another number of heads.
      UnsupportedError: the Triton kernels lack the head_dim, block size or dtype, or a table is
        wider than a plan can number.
    """
    _check(q, k_pool, v_pool, layer, table, length, window, softcap)
    if scale is None:
        scale = q.shape[-1] ** -0.5
    if choose_implementation(policy) == "xla":
        return xla.tree_attention(
            q, k_pool, v_pool, layer, table, length, scale=scale, window=window, softcap=softcap
        )
    from dendrite_jax.kernels.tree_attention import gpu

    if plan is None:
        plan = gpu.make_plan(table, length, k_pool, q.shape[1], window)
    _check_plan(plan, table, window, q.shape[1] // k_pool.shape[2])
    return gpu.tree_attention(
        q, k_pool, v_pool, layer, table, length, plan, scale=scale, softcap=softcap
    )


def _check(
    q: Array,
    k_pool: Array,
    v_pool: Array,
    layer: int | Array,
    table: Array,
    length: Array,
    window: int | None,
    softcap: float | None,
) -> None:
    """Raises ValueError for arguments that do not fit together."""
    if q.ndim != 3:
        raise ValueError(f"q has shape {q.shape}, not [lanes, heads, head_dim]")
    check_pools(k_pool, v_pool, layer)
    check_heads("q", q, k_pool)
    check_rows(q.shape[0], table=table, length=length)
    check_options(window, softcap)


def _check_plan(plan: Plan, table: Array, window: int | None, group: int) -> None:
    """Raises ValueError for a plan of tables, a window or heads other than those at hand."""
    if plan.table.shape != table.shape:
        raise ValueError(f"the plan is for tables {plan.table.shape}, not {table.shape}")
    if (plan.window, plan.group) != (window, group):
        raise ValueError(
            f"the plan is for window {plan.window} and {plan.group} query heads a kv head, "
            f"not {window} and {group}"
        )
