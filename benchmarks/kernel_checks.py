"""The kernels on this machine's GPU, compiled, against their plain-XLA twins in float32.

python -m dendrite_jax.benchmarks.kernel_checks --trees 500

The twins themselves are held to float64 by the tests; here they run at the highest precision on the
operands that the kernels get, rounded to the kernels' dtype. Every check raises on a NaN.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.harness.shapes import random_model
from dendrite_jax.benchmarks.harness.timing import PARALLEL
from dendrite_jax.benchmarks.kernels.trees import Tree, random_tree
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import GREEDY, GenerateConfig
from dendrite_jax.kernels.blocks import BLOCK_SIZE
from dendrite_jax.kernels.copy_blocks import copy_blocks
from dendrite_jax.kernels.linear import MAX_ROWS, Dense, linear, residual_linear, rms_norm
from dendrite_jax.kernels.paged_prefill import paged_prefill
from dendrite_jax.kernels.policy import IMPLEMENTATIONS, KernelPolicy
from dendrite_jax.kernels.tree_attention import tree_attention
from dendrite_jax.kernels.verify_attention import ancestor_mask, verify_attention

BOUNDS = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 1e-4}
"""Largest relative error, ‖out − twin‖ / ‖twin‖."""

Check = tuple[str, Callable[[], float]]
"""A dtype, and what gives a relative error."""

BLOCKS, LANES, MAX_BLOCKS = 640, 24, 160
"""Every tree is padded to these, so that a shape is compiled once."""

SHAPES = [(32, 8, 128), (8, 8, 64), (7, 1, 128), (16, 1, 256), (8, 2, 96)]
"""Query heads, kv heads, head_dim."""

OPTIONS: list[dict[str, Any]] = [{}, {"window": 100}, {"softcap": 5.0}]

CASES = [(SHAPES[0], option) for option in OPTIONS] + [
    (shape, OPTIONS[index % 3]) for index, shape in enumerate(SHAPES[1:])
]
"""The first shape with every option, the others with one each."""


def _attend(
    call: Callable[..., Any], arrays: tuple[Any, ...], precise: bool, **options: Any
) -> tuple[Array, Array]:
    """A kernel of layer 1, or its twin on float32 copies."""
    if precise:
        arrays = tuple(
            x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) else x for x in arrays
        )
    count = len(arrays) - 2
    with jax.default_matmul_precision("highest" if precise else "default"):
        return call(
            *arrays[:count],
            1,
            *arrays[count:],
            policy=KernelPolicy("xla" if precise else "triton"),
            **options,
        )


_compiled = jax.jit(_attend, static_argnums=(0, 2), static_argnames=("window", "softcap"))


def _relative_error(
    call: Callable[..., Any],
    draw: Callable[[], tuple[Array, ...]],
    pools: Callable[[], tuple[Array, Array]],
    named: tuple[np.ndarray, np.ndarray],
    **options: Any,
) -> float:
    """Error of a kernel's output against its twin's; infinite if a log-sum-exp is off."""
    arrays = (*draw(), *pools(), *map(jnp.asarray, named))
    out, lse = (np.asarray(x, np.float64) for x in _compiled(call, arrays, False, **options))
    want, want_lse = (np.asarray(x, np.float64) for x in _compiled(call, arrays, True, **options))
    lse_right = np.allclose(lse, want_lse, rtol=0, atol=0.05)  # equal infinities are close
    if not np.isfinite(out).all() or not lse_right:
        return float("inf")
    return float(np.linalg.norm(out - want)) / max(float(np.linalg.norm(want)), 1e-30)


def _draw(seed: int, shape: tuple[int, ...], dtype: str) -> tuple[Array]:
    """Random queries."""
    return (jax.random.normal(jax.random.key(seed), shape, dtype),)


def _draft(seed: int, shapes: Any, dtype: str, parent: np.ndarray) -> tuple[Array, ...]:
    """Random queries, keys and values of draft trees, and which nodes see which."""
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    drawn = (jax.random.normal(*pair, dtype) for pair in zip(keys, shapes, strict=True))
    return (*drawn, ancestor_mask(jnp.asarray(parent)))


@cache
def _pools(kv_heads: int, head_dim: int, dtype: str) -> tuple[Array, Array]:
    """Two layers of random keys and values."""
    shape = (2, BLOCKS, kv_heads, BLOCK_SIZE, head_dim)
    keys = jax.random.split(jax.random.key(1))
    return jax.random.normal(keys[0], shape, dtype), jax.random.normal(keys[1], shape, dtype)


def _tree(rng: np.random.Generator) -> Tree:
    """A random tree that fits the pools, padded to the common shape."""
    while True:
        tree = random_tree(rng, LANES, 300)
        if tree.num_blocks <= BLOCKS and tree.table.shape[1] <= MAX_BLOCKS:
            return tree.padded(MAX_BLOCKS, BLOCKS)


def tree_checks(count: int) -> Iterator[Check]:
    """Random trees with idle lanes, every shape and option in turn."""
    rng = np.random.default_rng(0)
    for number in range(count):
        dtype = ["bfloat16", "float16"][number % 2] if number % 27 else "float32"
        (heads, kv_heads, head_dim), options = CASES[number // 2 % len(CASES)]
        tree = _tree(rng)
        q = partial(_draw, number, (LANES, heads, head_dim), dtype)
        pools = partial(_pools, kv_heads, head_dim, dtype)
        named = tree.table, tree.length
        yield dtype, partial(_relative_error, tree_attention, q, pools, named, **options)


def prefill_checks(count: int) -> Iterator[Check]:
    """Several new tokens over a cached prefix."""
    rng = np.random.default_rng(1)
    for number in range(count):
        dtype = list(BOUNDS)[number % 3]
        (heads, kv_heads, head_dim), options = CASES[number % len(CASES)]
        queries = [3, 40, 200][number % 3]
        tree = _tree(rng)
        rows = np.flatnonzero(tree.length > queries)[:4]
        rows = np.resize(rows, 4) if rows.size else np.zeros(4, int)
        start = np.maximum(tree.length[rows] - queries, 0).astype(np.int32)
        q = partial(_draw, number, (4, queries, heads, head_dim), dtype)
        pools = partial(_pools, kv_heads, head_dim, dtype)
        named = tree.table[rows], start
        yield dtype, partial(_relative_error, paged_prefill, q, pools, named, **options)


def verify_checks(count: int) -> Iterator[Check]:
    """Draft trees over a cached prefix."""
    rng = np.random.default_rng(2)
    for number in range(count):
        dtype = list(BOUNDS)[number % 3]
        heads, kv_heads, head_dim = SHAPES[number % len(SHAPES)]
        nodes = [5, 64][number % 2]
        tree = _tree(rng)
        parent = np.stack(
            [[int(rng.integers(-1, node)) for node in range(nodes)] for _ in range(4)]
        )
        shapes = [(4, nodes, n, head_dim) for n in (heads, kv_heads, kv_heads)]
        draft = partial(_draft, number, shapes, dtype, parent)
        pools = partial(_pools, kv_heads, head_dim, dtype)
        named = tree.table[:4], tree.length[:4]
        yield dtype, partial(_relative_error, verify_attention, draft, pools, named)


@partial(jax.jit, static_argnums=2)
def _products(x: Array, weights: tuple[Array, ...], policy: KernelPolicy) -> Array:
    """Both products of a layer's second half, and the norm that follows them."""
    post_norm, gate_up, bias, down, next_norm = weights
    inner = linear(x, Dense(gate_up), norm=post_norm, bias=bias, swiglu=True, policy=policy)
    y, normed = residual_linear(inner, x, Dense(down), next_norm=next_norm, policy=policy)
    return jnp.stack([y, rms_norm(y, next_norm, 1e-5) if normed is None else normed])


def product_checks() -> Iterator[Check]:
    """The products, from one row to more than the kernels take."""
    for dtype in BOUNDS:
        for rows in (1, 2, 17, MAX_ROWS, 2 * MAX_ROWS + 1):
            yield dtype, partial(_product_error, rows, dtype)


def _product_error(rows: int, dtype: str) -> float:
    """Relative error of both products and the norm after them."""
    hidden = 1024
    inner = 2816 if rows <= MAX_ROWS else 4096  # the depth of many rows is then split
    shapes = ((hidden,), (2 * inner, hidden), (2 * inner,), (hidden, inner), (hidden,))
    keys = jax.random.split(jax.random.key(5), len(shapes) + 1)
    weights = tuple(
        (jax.random.normal(key, shape) * shape[-1] ** (-0.5 * (len(shape) == 2))).astype(dtype)
        for key, shape in zip(keys[1:], shapes, strict=True)
    )
    x = jax.random.normal(keys[0], (rows, hidden)).astype(dtype)
    wide = jax.tree.map(lambda array: array.astype(jnp.float32), (x, weights))
    with jax.default_matmul_precision("highest"):  # else products of many float32 rows are TF32
        got = np.asarray(_products(x, weights, KernelPolicy("triton")), np.float64)
        want = np.asarray(_products(*wide, KernelPolicy("xla")), np.float64)
    error = float(np.linalg.norm(got - want) / np.linalg.norm(want))
    return error if np.isfinite(error) else float("inf")


def check_copies() -> bool:
    """Whether copied blocks equal their sources, and nothing else changed."""
    pools = _pools(2, 64, "bfloat16")
    source, destination = jnp.array([3, 7, 0, 9]), jnp.array([100, BLOCKS, 5, 101])
    calls = [
        jax.jit(partial(copy_blocks, policy=KernelPolicy(name)))(*pools, source, destination)
        for name in IMPLEMENTATIONS
    ]
    return all(bool(jnp.array_equal(a, b)) for a, b in zip(*calls, strict=True))


def check_loop_memory() -> dict[str, float]:
    """Peak device memory of a generating loop, over what lies there anyway, in pools."""
    model = random_model("small", jnp.bfloat16)
    config = CacheConfig(num_blocks=20_000, num_slots=64, max_context=512)
    state = jax.jit(engine.init, static_argnames="config")(model, config=config)
    pool_bytes = state.cache.num_blocks * state.cache.pool.block_bytes

    @partial(jax.jit, donate_argnums=1)
    def search(model: Any, state: Any) -> Any:
        state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), 1))
        state, _ = engine.prefill(model, state, ids, jnp.ones((1, 37), jnp.int32), jnp.array([37]))
        state, children = engine.fork(state, jnp.repeat(ids, 16))
        state, out = engine.generate(model, state, children, GenerateConfig(48), GREEDY)
        return state, out.tokens

    compiled = search.lower(model, state).compile()
    memory = compiled.memory_analysis()
    if memory is None:
        raise RuntimeError("this version of jax does not tell how much memory a program takes")
    state, tokens = compiled(model, state)
    kv.raise_errors(state.cache)
    return {
        "temporary_bytes_over_pool": memory.temp_size_in_bytes / pool_bytes,
        "tokens": float(tokens.size),
    }


def check_vmap() -> bool:
    """Whether generating for several problems under `vmap` gives what a loop over them gives."""
    model = random_model("small", jnp.float32)
    config = CacheConfig(num_blocks=64, num_slots=8, max_context=128)
    prompts = jax.random.randint(jax.random.key(3), (3, 21), 0, model.vocab_size)

    def solve(prompt: Array) -> Array:
        state = engine.init(model, config)
        state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), 1))
        state, _ = engine.prefill(model, state, ids, prompt[None], jnp.array([21]))
        state, children = engine.fork(state, jnp.repeat(ids, 3))
        first = jnp.arange(3)
        state, _ = engine.advance(model, state, children, first)
        return engine.generate(model, state, children, GenerateConfig(12), GREEDY)[1].tokens

    with jax.default_matmul_precision("highest"):
        mapped = jax.jit(jax.vmap(solve))(prompts)
        alone = jnp.stack([jax.jit(solve)(prompt) for prompt in prompts])
    return bool(jnp.array_equal(mapped, alone))


def run(trees: int = 500) -> dict[str, Any]:
    """All checks; the figures, and under "failed" the names of those out of bounds.

    They run side by side, since most of the time goes into compiling.
    """
    groups = {
        "products": product_checks(),
        "verify": verify_checks(3),
        "prefill": prefill_checks(7),
        "trees": tree_checks(trees),
    }
    others = {
        "copies_equal": check_copies,
        "vmap_equals_loop": check_vmap,
        "loop_memory": check_loop_memory,
    }
    result: dict[str, Any] = {"random_trees": trees}
    with ThreadPoolExecutor(PARALLEL) as pool:
        single = {name: pool.submit(check) for name, check in others.items()}
        errors = {
            name: [(dtype, pool.submit(check)) for dtype, check in checks]
            for name, checks in groups.items()
        }
        for name, found in errors.items():
            result[name] = dict.fromkeys(BOUNDS, 0.0)
            for dtype, error in found:
                result[name][dtype] = max(result[name][dtype], error.result())
            print(name, result[name], file=sys.stderr, flush=True)
        result |= {name: check.result() for name, check in single.items()}
    failed = [
        f"{name} {dtype}"
        for name in groups
        for dtype, error in result[name].items()
        if not error <= BOUNDS[dtype]
    ]
    failed += [name for name in ("copies_equal", "vmap_equals_loop") if not result[name]]
    if result["loop_memory"]["temporary_bytes_over_pool"] > 0.5:
        failed.append("loop_memory")
    return result | {"failed": failed}


def main(arguments: list[str] | None = None) -> int:
    """Prints the figures as JSON; 1 if a check failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, default=500)
    options = parser.parse_args(arguments)
    if jax.default_backend() != "gpu":
        print(f"the kernels run on a GPU; this is {jax.default_backend()}", file=sys.stderr)
        return 2
    about = {"benchmark": "kernel_checks", "environment": harness.environment()}
    result = about | run(options.trees)
    print(json.dumps(result, indent=1))
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
