"""What every attention call must hold, checked while it is traced.

Values are not known then: a table that names a block outside of the pool, or a length beyond the
table, is what `dendrite_jax.cache.debug` looks for.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array


def check_pools(k_pool: Array, v_pool: Array, layer: int | Array) -> None:
    """Raises ValueError unless the pools are alike and have the layer."""
    if k_pool.ndim != 5:
        raise ValueError(
            f"k_pool has shape {k_pool.shape}, not [layers, blocks, kv_heads, block_size, head_dim]"
        )
    if (v_pool.shape, v_pool.dtype) != (k_pool.shape, k_pool.dtype):
        raise ValueError(
            f"v_pool is {v_pool.dtype}{list(v_pool.shape)}, "
            f"but k_pool is {k_pool.dtype}{list(k_pool.shape)}"
        )
    if not isinstance(layer, int):  # its value is not known while it is traced
        if layer.shape or not jnp.issubdtype(layer.dtype, jnp.integer):
            raise ValueError(f"layer is {layer.dtype}{list(layer.shape)}, not an integer scalar")
    elif not 0 <= layer < k_pool.shape[0]:
        raise ValueError(f"layer is {layer}, but the pools have {k_pool.shape[0]} layers")


def check_heads(name: str, array: Array, k_pool: Array) -> None:
    """Raises ValueError unless floats [..., heads, head_dim] fit the pool's."""
    _, _, kv_heads, _, head_dim = k_pool.shape
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} has dtype {array.dtype}, not a floating-point one")
    if array.shape[-1] != head_dim:
        raise ValueError(f"{name} has head_dim {array.shape[-1]}, but the pools have {head_dim}")
    if array.shape[-2] % kv_heads:
        raise ValueError(
            f"{name} has {array.shape[-2]} heads, not a multiple of {kv_heads} kv heads"
        )


def check_rows(rows: int, *, table: Array, **vectors: Array) -> None:
    """Raises ValueError unless the table is i32[rows, max_blocks] and each vector i32[rows]."""
    if table.ndim != 2 or table.shape[0] != rows:
        raise ValueError(f"table has shape {table.shape}, not ({rows}, max_blocks)")
    for name, array in vectors.items():
        if array.shape != (rows,):
            raise ValueError(f"{name} has shape {array.shape}, not ({rows},)")
    for name, array in {"table": table, **vectors}.items():
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name} has dtype {array.dtype}, not an integer one")


def check_options(window: int | None, softcap: float | None) -> None:
    """Raises ValueError for a window without a token or a soft-cap that is no positive number."""
    if window is not None and window < 1:
        raise ValueError(f"window is {window}; it must be at least 1, or None for all tokens")
    if softcap is not None and not 0 < softcap < float("inf"):
        raise ValueError(f"softcap is {softcap}; it must be positive and finite, or None for none")
