"""Tree attention on trees of the shapes that searches grow, against the bytes of their blocks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax.benchmarks.harness.timing import (
    CACHE_BYTES,
    PARALLEL,
    READ_BANDWIDTH,
    compile_all,
    seconds_per_turn,
)
from dendrite_jax.benchmarks.kernels.trees import TREES, Tree
from dendrite_jax.kernels.blocks import BLOCK_SIZE
from dendrite_jax.kernels.tree_attention import make_plan, reference, tree_attention
from dendrite_jax.kernels.tree_attention.plan import Plan

HEAD_DIM = 128
"""Elements of a head in every timed shape."""


def _operands(tree: Tree, heads: int, kv_heads: int) -> tuple[Any, ...]:
    """q, pools with enough layers to rotate over, table and length; bfloat16."""
    shape = (num_layers(tree, kv_heads), tree.num_blocks, kv_heads, BLOCK_SIZE, HEAD_DIM)
    keys = jax.random.split(jax.random.key(0), 3)
    draw = jax.jit(partial(jax.random.normal, dtype=jnp.bfloat16), static_argnums=1)
    q = draw(keys[0], (len(tree.length), heads, HEAD_DIM))
    pools = draw(keys[1], shape), draw(keys[2], shape)
    return q, pools, jnp.asarray(tree.table), jnp.asarray(tree.length)


def unique_bytes(tree: Tree, kv_heads: int) -> int:
    """Bytes of keys and values that a layer must read at least once."""
    return len(tree.unique_blocks()) * 2 * kv_heads * BLOCK_SIZE * HEAD_DIM * 2


def num_layers(tree: Tree, kv_heads: int) -> int:
    """Layers to rotate over, so that the last-level cache does not hold them; at most 32."""
    return max(2, min(32, int(CACHE_BYTES / unique_bytes(tree, kv_heads)) + 1))


def _repeats(pools: Any) -> int:
    """Layers of a timed turn: all of them, often enough for a turn of some length."""
    layers = pools[0].shape[0]
    return layers * -(-24 // layers)


def _ours(q: Array, pools: Any, table: Array, length: Array, plan: Plan) -> Array:
    """Attention of one layer after another, each query the output of the layer before."""
    k_pool, v_pool = pools
    for index in range(_repeats(pools)):
        q, _ = tree_attention(q, k_pool, v_pool, index % len(k_pool), table, length, plan=plan)
    return q


def _planning(table: Array, pools: Any, length: Array, heads: int) -> Array:
    """One plan, of which something depends on every part."""
    plan = make_plan(table, length, pools[0], heads)
    total = sum((jnp.sum(part) for part in jax.tree.leaves(plan)), jnp.int32(0))
    return table + (total == -1).astype(table.dtype)


def _paged_attention(q: Array, pages: Any, table: Array, length: Array) -> Array:
    """jax's own, whose pages are [kv_heads, pages, page, head_dim]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from jax.experimental.pallas.ops.gpu import paged_attention as peer
    scaled = q * jnp.asarray(HEAD_DIM**-0.5, q.dtype)
    return peer.paged_attention(scaled, *pages, table, length)


def _peer(q: Array, pages: Any, table: Array, length: Array) -> Array:
    """`_ours` by jax's own."""
    for layer in pages:
        q = _paged_attention(q, layer, table, length)
    return q


@jax.jit
def _twin(q: Array, k: Array, v: Array, table: Array, length: Array) -> tuple[Array, Array]:
    """Layer 0 by the reference in float32, of the named blocks only."""
    local = jnp.where(table >= 0, jnp.arange(table.size).reshape(table.shape), -1)
    blocks = jnp.maximum(table, 0)
    k, v = (
        pool[0, blocks].reshape(1, table.size, *pool.shape[2:]).astype(jnp.float32)
        for pool in (k, v)
    )
    with jax.default_matmul_precision("highest"):
        return reference.tree_attention(
            q.astype(jnp.float32), k, v, 0, local, length, scale=q.shape[-1] ** -0.5
        )


def relative_error(q: Array, pools: Any, table: Array, length: Array, plan: Plan) -> float:
    """Norm of the error over the norm, against float32 arithmetic at full precision, layer 0."""
    out, _ = jax.jit(tree_attention, static_argnums=3)(q, *pools, 0, table, length, plan=plan)
    errors = norms = 0.0
    for start in range(0, q.shape[0], 8):
        rows = np.minimum(np.arange(start, start + 8), q.shape[0] - 1)
        want, _ = _twin(q[rows], *pools, table[rows], length[rows])
        got, want = np.asarray(out[rows], np.float64), np.asarray(want, np.float64)
        errors += float(((got - want) ** 2).sum())
        norms += float((want**2).sum())
    return float(np.sqrt(errors / norms))


def measure(heads: int, kv_heads: int) -> list[dict[str, Any]]:
    """One record a tree: times of a layer, of a plan, and of jax's paged attention.

    What compiles or is checked for all trees is done for several at a time.
    """
    trees = {name: make() for name, make in TREES.items()}
    with ThreadPoolExecutor(PARALLEL) as pool:
        made = pool.map(partial(_jobs, heads, kv_heads), trees.values())
        jobs = dict(zip(trees, made, strict=True))
        compiled = compile_all(
            {(tree, name): job for tree, named in jobs.items() for name, job in named.items()}
        )
        found = pool.map(lambda named: relative_error(*named["attention"][1]), jobs.values())
        errors = dict(zip(trees, found, strict=True))
    records = []
    for name, tree in trees.items():
        done = {job: compiled[name, job] for job in jobs[name]}
        record = {"tree": name, "heads": f"{heads}/{kv_heads}", "relative_error": errors[name]}
        records.append(record | _time(tree, kv_heads, jobs[name], done))
    return records


Job = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function and its arguments."""


def _jobs(heads: int, kv_heads: int, tree: Tree) -> dict[str, Job]:
    """What is timed of a tree."""
    q, pools, table, length = _operands(tree, heads, kv_heads)
    plan = jax.jit(make_plan, static_argnums=3)(table, length, pools[0], heads)
    wide = -(-table.shape[1] // 128) * 128  # jax's wants a multiple of its 16 splits of 8 pages
    padded = jnp.pad(jnp.maximum(table, 0), ((0, 0), (0, wide - table.shape[1])))
    pages = [
        tuple(jnp.moveaxis(pool[layer], 1, 0) for pool in pools)
        for layer in range(pools[0].shape[0])
    ]
    return {
        "attention": (_ours, (q, pools, table, length, plan)),
        "plan": (partial(_planning, heads=heads), (table, pools, length)),
        "jax": (_peer, (q, pages, padded, length)),
    }


def _time(
    tree: Tree, kv_heads: int, jobs: dict[str, Job], compiled: dict[str, Any]
) -> dict[str, Any]:
    """The times of one tree."""
    for key in ("attention", "plan"):
        if isinstance(compiled[key], Exception):
            raise compiled[key]
    q, pools, *_ = jobs["attention"][1]
    turn = seconds_per_turn(compiled["attention"], jobs["attention"][1])
    seconds = turn / _repeats(pools)
    unique = unique_bytes(tree, kv_heads)
    record: dict[str, Any] = {
        "lanes": q.shape[0],
        "unique_bytes": unique,
        "us": seconds * 1e6,
        "floor_us": unique / READ_BANDWIDTH * 1e6,
        "of_bandwidth": unique / READ_BANDWIDTH / seconds,
        "plan_us": seconds_per_turn(compiled["plan"], jobs["plan"][1]) * 1e6,
        "jax_us": None,
    }
    if isinstance(compiled["jax"], Exception):
        reason = f"{type(compiled['jax']).__name__}: {str(compiled['jax'])[:200]}"
        return record | {"jax_not_measured": reason}
    peer = seconds_per_turn(compiled["jax"], jobs["jax"][1])
    return record | {"jax_us": peer / pools[0].shape[0] * 1e6}
