"""Rotary embedding with append: the interpreted Triton kernel and the XLA twin against float64."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax.kernels.rope_append import rope_append
from dendrite_jax.kernels.rope_append import triton as kernels
from kernels.interpreter import launch, poisoned, tensor

LAYERS, BLOCKS, KV_HEADS, BLOCK_SIZE, D, HEADS, LAYER = 2, 5, 2, 16, 24, 4, 1
EPS = 1e-3
BLOCK = np.array([[2], [BLOCKS], [0]], np.int32)  # the second token is dropped
OFFSET = np.array([[3], [0], [15]], np.int32)


def operands(normed):
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    pool = (LAYERS, BLOCKS, KV_HEADS, BLOCK_SIZE, D)
    norms = (draw(D), draw(D)) if normed else (None, None)
    qkv = draw(3, 1, (HEADS + 2 * KV_HEADS) * D)
    return qkv, draw(3, 1, D // 2), draw(3, 1, D // 2), draw(*pool), draw(*pool), *norms


def oracle(qkv, cos, sin, k_pool, v_pool, q_norm, k_norm):
    """Token by token, head by head."""
    k_pool, v_pool = k_pool.astype(np.float64), v_pool.astype(np.float64)
    heads = qkv.astype(np.float64).reshape(3, HEADS + 2 * KV_HEADS, D)
    queries = np.zeros((3, 1, HEADS, D))
    for token in range(3):
        turn = cos[token, 0] + 1j * sin[token, 0]
        for head, x in enumerate(heads[token]):
            if head < HEADS + KV_HEADS:
                norm = q_norm if head < HEADS else k_norm
                if norm is not None:
                    x = x / np.sqrt((x * x).mean() + EPS) * norm
                turned = (x[: D // 2] + 1j * x[D // 2 :]) * turn
                x = np.concatenate([turned.real, turned.imag])
            if head < HEADS:
                queries[token, 0, head] = x
            elif BLOCK[token, 0] < BLOCKS:
                pool = k_pool if head < HEADS + KV_HEADS else v_pool
                place = LAYER, BLOCK[token, 0], (head - HEADS) % KV_HEADS, OFFSET[token, 0]
                pool[place] = x
    return queries, k_pool, v_pool


def xla(qkv, cos, sin, k_pool, v_pool, q_norm, k_norm):
    return rope_append(
        qkv,
        (cos, sin),
        jnp.asarray(k_pool),
        jnp.asarray(v_pool),
        LAYER,
        jnp.asarray(BLOCK),
        jnp.asarray(OFFSET),
        q_norm=q_norm,
        k_norm=k_norm,
        eps=EPS,
        implementation="xla",
    )


def interpreted(qkv, cos, sin, k_pool, v_pool, q_norm, k_norm):
    pools = tensor(k_pool), tensor(v_pool)
    queries = poisoned((3, 1, HEADS, D), "float32")
    launch(
        kernels.rope_append_kernel,
        (3, 2),
        *pools,
        qkv,
        cos,
        sin,
        q_norm,
        k_norm,
        BLOCK,
        OFFSET,
        BLOCKS,
        LAYER * BLOCKS,
        queries,
        eps=EPS,
        HEADS=HEADS,
        KV_HEADS=KV_HEADS,
        BLOCK_SIZE=BLOCK_SIZE,
        D=D,
        HALF=16,
        HEAD_TILE=4,
    )
    return queries, *pools


@pytest.mark.parametrize("implementation", [xla, interpreted], ids=["xla", "triton"])
@pytest.mark.parametrize("normed", [False, True])
def test_matches_float64(normed, implementation):
    case = operands(normed)
    for got, want in zip(implementation(*case), oracle(*case), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-5)
