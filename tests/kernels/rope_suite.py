"""What rotary embedding with append must do, whatever implements it."""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.policy import Implementation, KernelPolicy
from dendrite_jax.kernels.rope_append import rope_append
from kernels.dense import BOUNDS, wide

LAYERS, BLOCKS, KV_HEADS, BLOCK_SIZE, LAYER = 2, 5, 2, 16, 1
LANES, TOKENS = 3, 2
EPS = 1e-3
BLOCK = np.array([[2, 2], [BLOCKS, 4], [0, BLOCKS + 3]], np.int32)  # two tokens are dropped
OFFSET = np.array([[3, 4], [0, 15], [15, 1]], np.int32)


class Operands(NamedTuple):
    """Arrays of one call, block and offset left out."""

    qkv: jax.Array
    rope: tuple[jax.Array, jax.Array]
    k_pool: jax.Array
    v_pool: jax.Array
    norms: tuple[jax.Array, jax.Array] | tuple[None, None]


def operands(
    normed: bool, heads: int = 4, head_dim: int = 24, dtype: str = "float32", seed: int = 0
) -> Operands:
    """Random arrays; cosines and sines need not be of an angle."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, dtype: str = dtype) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    pool = (LAYERS, BLOCKS, KV_HEADS, BLOCK_SIZE, head_dim)
    half = (LANES, TOKENS, head_dim // 2)
    return Operands(
        draw(LANES, TOKENS, (heads + 2 * KV_HEADS) * head_dim),
        (draw(*half, dtype="float32"), draw(*half, dtype="float32")),
        draw(*pool),
        draw(*pool),
        (draw(head_dim), draw(head_dim)) if normed else (None, None),
    )


def oracle(arrays: Operands, block: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, ...]:
    """Token by token, head by head, in float64."""
    k_pool, v_pool = wide(arrays.k_pool).copy(), wide(arrays.v_pool).copy()
    head_dim = k_pool.shape[-1]
    split = wide(arrays.qkv).reshape(LANES, TOKENS, -1, head_dim)
    heads = split.shape[2] - 2 * KV_HEADS
    cos, sin = map(wide, arrays.rope)
    queries = np.zeros((LANES, TOKENS, heads, head_dim))
    for lane, token, head in np.ndindex(split.shape[:3]):
        x = split[lane, token, head]
        if head < heads + KV_HEADS:
            norm = arrays.norms[0 if head < heads else 1]
            if norm is not None:
                x = x / np.sqrt((x * x).mean() + EPS) * wide(norm)
            turn = cos[lane, token] + 1j * sin[lane, token]
            turned = (x[: head_dim // 2] + 1j * x[head_dim // 2 :]) * turn
            x = np.concatenate([turned.real, turned.imag])
        if head < heads:
            queries[lane, token, head] = x
        elif block[lane, token] < BLOCKS:
            pool = k_pool if head < heads + KV_HEADS else v_pool
            to = LAYER, block[lane, token], (head - heads) % KV_HEADS, offset[lane, token]
            pool[to] = x
    return queries, k_pool, v_pool


def mapped_axes(**mapped: Any) -> Any:
    """`in_axes` for Operands of which only the named ones have the axis."""
    none: dict[str, Any] = dict.fromkeys(("qkv", "k_pool", "v_pool"))
    pairs = {"rope": (None, None), "norms": (None, None)}
    return Operands(**{**none, **pairs, **mapped})


class RopeAppendSuite:
    """Against float64."""

    implementation: ClassVar[Implementation]

    def append(self, arrays: Operands, block: Any, offset: Any) -> Any:
        return rotated(arrays, block, offset, self.implementation)

    @pytest.mark.parametrize("dtype", BOUNDS)
    @pytest.mark.parametrize("normed", [False, True])
    def test_matches_float64(self, normed: bool, dtype: str) -> None:
        arrays = operands(normed, dtype=dtype)
        got = self.append(arrays, BLOCK, OFFSET)
        for part, want in zip(got, oracle(arrays, BLOCK, OFFSET), strict=True):
            assert part.dtype == dtype
            error = float(np.linalg.norm(wide(part) - want)) / float(np.linalg.norm(want))
            assert error <= BOUNDS[dtype]

    def test_heads_that_do_not_fill_a_tile(self) -> None:
        arrays = operands(True, heads=7, head_dim=64)
        got = self.append(arrays, BLOCK, OFFSET)
        for part, want in zip(got, oracle(arrays, BLOCK, OFFSET), strict=True):
            np.testing.assert_allclose(part, want, atol=2e-5)

    def test_only_the_tokens_places_change(self) -> None:
        arrays = operands(False)
        _, k, v = self.append(arrays, BLOCK, OFFSET)
        written = np.zeros((LAYERS, BLOCKS, BLOCK_SIZE), bool)
        for block, offset in zip(BLOCK.ravel(), OFFSET.ravel(), strict=True):
            if block < BLOCKS:
                written[LAYER, block, offset] = True
        for got, before in ((k, arrays.k_pool), (v, arrays.v_pool)):
            changed = np.asarray(got != before).any(axis=(2, 4))
            np.testing.assert_array_equal(changed, written)

    @pytest.mark.parametrize("mapped", [False, True])
    def test_the_layer_may_be_traced(self, mapped: bool) -> None:
        arrays = operands(True)

        def of_layer(layer: jax.Array) -> Any:
            def compute(arrays: Operands) -> Any:
                return rotated(arrays, BLOCK, OFFSET, self.implementation, layer)

            if mapped:
                both = arrays._replace(qkv=arrays.qkv[None])
                parts = jax.vmap(compute, (mapped_axes(qkv=0),))(both)
                return jax.tree.map(lambda part: part[0], parts)
            return compute(arrays)

        got = jax.jit(of_layer)(jnp.int32(LAYER))
        for part, want in zip(got, oracle(arrays, BLOCK, OFFSET), strict=True):
            np.testing.assert_allclose(part, want, atol=2e-5)

    @pytest.mark.parametrize("pools_mapped", [False, True])
    def test_vmap_equals_a_loop(self, pools_mapped: bool) -> None:
        first, second = operands(True, seed=1), operands(True, seed=2)
        second = second._replace(norms=first.norms)
        if not pools_mapped:
            second = second._replace(k_pool=first.k_pool, v_pool=first.v_pool)
        both = jax.tree.map(lambda *pair: jnp.stack(pair), first, second)
        axes = mapped_axes(qkv=0, rope=(0, 0), k_pool=0, v_pool=0)
        both = both._replace(norms=first.norms)
        if not pools_mapped:
            axes = mapped_axes(qkv=0, rope=(0, 0))
            both = both._replace(k_pool=first.k_pool, v_pool=first.v_pool)
        block = jnp.stack([BLOCK, BLOCK[::-1]])
        got = jax.vmap(self.append, (axes, 0, None))(both, block, OFFSET)
        for index, arrays in enumerate((first, second)):
            want = oracle(arrays, np.asarray(block[index]), OFFSET)
            for mapped, alone in zip(got, want, strict=True):
                np.testing.assert_allclose(mapped[index], alone, atol=2e-5)

    def test_nested_vmap_equals_a_loop(self) -> None:
        """Tokens differ along the inner axis, the pools along the outer one."""
        first, second = operands(False, seed=1), operands(False, seed=2)
        pools: dict[str, Any] = {
            "k_pool": jnp.stack([first.k_pool, second.k_pool]),
            "v_pool": jnp.stack([first.v_pool, second.v_pool]),
        }
        both = first._replace(qkv=jnp.stack([first.qkv, second.qkv]), **pools)
        inner = jax.vmap(self.append, (mapped_axes(qkv=0), None, None))
        outer = jax.vmap(inner, (mapped_axes(k_pool=0, v_pool=0), None, None))
        got = outer(both, BLOCK, OFFSET)
        for i, pooled in enumerate((first, second)):
            for j, token in enumerate((first, second)):
                arrays = first._replace(qkv=token.qkv, k_pool=pooled.k_pool, v_pool=pooled.v_pool)
                for mapped, alone in zip(got, oracle(arrays, BLOCK, OFFSET), strict=True):
                    np.testing.assert_allclose(mapped[i, j], alone, atol=2e-5)


@partial(jax.jit, static_argnums=3)
def rotated(
    arrays: Operands,
    block: Any,
    offset: Any,
    implementation: Implementation,
    layer: Any = None,
) -> Any:
    """Queries and pools, written at a traced layer, or else at LAYER."""
    q_norm, k_norm = arrays.norms
    return rope_append(
        arrays.qkv,
        arrays.rope,
        arrays.k_pool,
        arrays.v_pool,
        LAYER if layer is None else layer,
        block,
        offset,
        q_norm=q_norm,
        k_norm=k_norm,
        eps=EPS,
        policy=KernelPolicy(implementation),
    )
