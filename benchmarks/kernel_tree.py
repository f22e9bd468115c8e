"""Tree attention on trees of the shapes that searches grow, against the bytes of their blocks."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax.benchmarks.timing import CACHE_BYTES, compile_all, seconds_per_turn
from dendrite_jax.benchmarks.trees import Tree, levels_tree, random_tree, search_tree
from dendrite_jax.kernels.tree_attention import gpu, reference
from dendrite_jax.kernels.tree_attention.plan import Plan, build_plan
from dendrite_jax.kernels.tree_attention.shapes import TreeTiles

READ_BANDWIDTH = 2.95e12
"""Bytes a second that one H100 reads."""

TREES: dict[str, Callable[[], Tree]] = {
    "1,10/4000,400": lambda: levels_tree((1, 10), (4000, 400)),
    "1,64/8192,256": lambda: levels_tree((1, 64), (8192, 256)),
    "1,256/2048,32": lambda: levels_tree((1, 256), (2048, 32)),
    "1,4,16,64/1024,256,128,64": lambda: levels_tree((1, 4, 16, 64), (1024, 256, 128, 64)),
    "search tree of 200": lambda: search_tree(200, 512, 64),
    "64 unshared x 1024": lambda: levels_tree((64,), (1024,)),
    "1,8/300,32": lambda: levels_tree((1, 8), (300, 32)),
    "1 x 4096": lambda: levels_tree((1,), (4096,)),
}
"""Nodes by level / tokens of a node by level."""

VARIANTS = {
    "w64": TreeTiles(),
    "w128 k32": TreeTiles(wide_rows=128, wide_keys=32),
    "w128 k32 s2": TreeTiles(wide_rows=128, wide_keys=32, stages=2),
    "w128 k32 c2": TreeTiles(wide_rows=128, wide_keys=32, wide_cost=2),
    "w128 8 warps": TreeTiles(wide_rows=128, warps=8, programs=132),
}
"""Tile sizes that are compared, by a short name."""


@partial(jax.jit, static_argnames=("num_blocks", "num_kv_heads", "group", "window", "tiles"))
def _jitted_plan(table: Array, length: Array, **options: Any) -> Plan:
    return build_plan(table, length, **options)


def _plan(tree: Tree, pool: Array, num_heads: int, tiles: TreeTiles) -> Plan:
    return _jitted_plan(
        tree.table,
        tree.length,
        num_blocks=pool.shape[1],
        num_kv_heads=pool.shape[2],
        group=num_heads // pool.shape[2],
        window=None,
        tiles=tiles,
    )


def _attention(q: Array, pools: tuple[Array, Array], layer: int, length: Array, plan: Plan) -> Any:
    scale = q.shape[-1] ** -0.5
    return gpu.tree_attention(q, *pools, layer, length, plan, scale=scale, softcap=None)


_jitted_attention = jax.jit(_attention, static_argnums=2)


def _pools(layers: int, num_blocks: int, kv_heads: int, head_dim: int, dtype: Any) -> tuple:
    shape = (layers, num_blocks, kv_heads, 16, head_dim)
    make = jax.jit(lambda key: jax.random.normal(key, shape, dtype))
    return make(jax.random.key(1)), make(jax.random.key(2))


@jax.jit
def _twin(q: Array, k: Array, v: Array, table: Array, length: Array) -> tuple[Array, Array]:
    """Layer 1 by the reference in float32, of the named blocks only."""
    local = jnp.where(table >= 0, jnp.arange(table.size).reshape(table.shape), -1)
    blocks = jnp.maximum(table, 0)
    k, v = (
        pool[1, blocks].reshape(1, table.size, *pool.shape[2:]).astype(jnp.float32)
        for pool in (k, v)
    )
    with jax.default_matmul_precision("highest"):
        return reference.tree_attention(
            q.astype(jnp.float32), k, v, 0, local, length, scale=q.shape[-1] ** -0.5
        )


def relative_error(tree: Tree, q: Array, pools: tuple[Array, Array], plan: Plan) -> float:
    """Norm of the error over the norm, against float32 arithmetic at full precision, layer 1."""
    out, lse = _jitted_attention(q, pools, 1, tree.length, plan)
    errors, norms = 0.0, 0.0

    for start in range(0, len(tree.length), 8):
        rows = np.minimum(np.arange(start, start + 8), len(tree.length) - 1)
        want, want_lse = _twin(q[rows], *pools, tree.table[rows], tree.length[rows])
        got, want = np.asarray(out[rows], np.float64), np.asarray(want, np.float64)
        busy = tree.length[rows] > 0
        lse_off = np.abs(np.asarray(lse[rows]) - np.asarray(want_lse))[busy]
        if lse_off.size and lse_off.max() > 0.05:
            return float("nan")
        errors += float(((got - want) ** 2).sum())
        norms += float((want**2).sum())
    return float(np.sqrt(errors / max(norms, 1e-30)))


def check_random_trees(count: int, num_heads: int = 8, kv_heads: int = 2) -> dict[str, Any]:
    """Largest error over random trees with idle lanes, one compilation for all."""
    rng = np.random.default_rng(0)
    pools = _pools(2, 640, kv_heads, 128, jnp.bfloat16)
    worst = 0.0
    for seed in range(count):
        tree = random_tree(rng, 24, 400)
        if tree.num_blocks > 640:
            continue
        tree = tree.padded(320, 640)
        q = jax.random.normal(jax.random.key(seed), (24, num_heads, 128), jnp.bfloat16)
        plan = _plan(tree, pools[0], num_heads, TreeTiles())
        error = relative_error(tree, q, pools, plan)
        worst = max(worst, error if np.isfinite(error) else float("inf"))
    return {"random_trees": count, "worst_relative_error": worst}


def measure(num_heads: int = 32, kv_heads: int = 8, head_dim: int = 128) -> list[dict[str, Any]]:
    """Times every variant on every tree, plan excluded; one record each."""
    records = []
    for name, make in TREES.items():
        tree = make()
        unique = len(tree.unique_blocks()) * 2 * kv_heads * 16 * head_dim * 2
        layers = max(2, min(32, int(CACHE_BYTES / unique) + 1))
        repeats = layers * -(-24 // layers)
        pools = _pools(layers, tree.num_blocks, kv_heads, head_dim, jnp.bfloat16)
        lanes = len(tree.length)
        q = jax.random.normal(jax.random.key(0), (lanes, num_heads, head_dim), jnp.bfloat16)
        length = jnp.asarray(tree.length)
        with ThreadPoolExecutor(8) as threads:
            made = threads.map(partial(_plan, tree, pools[0], num_heads), VARIANTS.values())
            plans = dict(zip(VARIANTS, made, strict=True))

        def body(
            q: Array,
            pools: Any,
            length: Array,
            plan: Plan,
            repeats: int = repeats,
            layers: int = layers,
        ) -> Array:
            for index in range(repeats):
                q, _ = _attention(q, pools, index % layers, length, plan)
            return q

        compiled = compile_all(
            {key: (body, (q, pools, length, plan)) for key, plan in plans.items()}
        )
        for key, program in compiled.items():
            record: dict[str, Any] = {"tree": name, "heads": f"{num_heads}/{kv_heads}"}
            record |= {"variant": key, "lanes": lanes, "unique_bytes": unique}
            try:
                if isinstance(program, Exception):
                    raise program
                arguments = (q, pools, length, plans[key])
                seconds = seconds_per_turn(program, arguments) / repeats
                record |= {
                    "microseconds": seconds * 1e6,
                    "floor_microseconds": unique / READ_BANDWIDTH * 1e6,
                    "of_bandwidth": unique / READ_BANDWIDTH / seconds,
                    "relative_error": relative_error(tree, q, pools, plans[key]),
                }
            except Exception as error:
                record["error"] = f"{type(error).__name__}: {str(error)[:300]}"
            records.append(record)
    return records


def table(records: list[dict[str, Any]]) -> str:
    """Every variant of each tree, fastest first, one line a tree."""
    lines = []
    for name in dict.fromkeys(r["tree"] for r in records):
        mine = [r for r in records if r["tree"] == name]
        timed = sorted((r for r in mine if "microseconds" in r), key=lambda r: r["microseconds"])
        if timed:
            best = timed[0]
            others = ", ".join(f"{r['variant']} {r['microseconds']:.1f}" for r in timed)
            lines.append(
                f"{name:26} {best['heads']:5} best {best['microseconds']:6.1f} us floor "
                f"{best['floor_microseconds']:5.1f} ({100 * best['of_bandwidth']:3.0f}%) err "
                f"{max(r['relative_error'] for r in timed):.1e} | {others}"
            )
        lines += [f"{name:26} FAILED {r['variant']}: {r['error']}" for r in mine if "error" in r]
    return "\n".join(lines)
