"""Every verb works on whatever arrays a codec keeps, and on groups of layers that differ."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from flax import struct
from hypothesis import settings
from jax import Array

from cache.harness import HEAD_DIM, SMALL, Harness
from cache.test_state_machine import CacheMachine
from dendrite_jax import cache as kv
from dendrite_jax.cache import CacheConfig, GroupShape, Identity, StoredArray
from dendrite_jax.cache.codec import Stored
from dendrite_jax.kernels.policy import KernelPolicy


class WholeAndPart(struct.PyTreeNode):
    """Keys as whole numbers and one fraction a token and head, values scaled by a constant.

    Exact for what the harness stores: the elements of its keys are equal, in quarters.
    """

    scale: Array  # f32[], a power of two

    @property
    def arrays(self) -> tuple[StoredArray, ...]:
        return (
            StoredArray("part", 1, jnp.dtype("bfloat16")),
            StoredArray("v", HEAD_DIM, jnp.dtype("float32")),
            StoredArray("whole", HEAD_DIM, jnp.dtype("int32")),
        )

    def encode(self, k: Array, v: Array) -> Stored:
        whole = jnp.floor(k)
        part = (k - whole)[..., :1].astype(jnp.bfloat16)
        return {"part": part, "v": v * self.scale, "whole": whole.astype(jnp.int32)}

    def decode(self, stored: Stored) -> tuple[Array, Array]:
        k = stored["whole"].astype(jnp.float32) + stored["part"].astype(jnp.float32)
        return k, stored["v"] / self.scale

    def copy_blocks(
        self, stored: Stored, source: Array, destination: Array, policy: KernelPolicy
    ) -> dict[str, Array]:
        return {
            name: array.at[:, destination].set(array[:, source], mode="drop")
            for name, array in stored.items()
        }


SHAPE = (GroupShape((0, 2), 1, HEAD_DIM), GroupShape((1,), 2, HEAD_DIM))
IDENTITY = Identity(HEAD_DIM, jnp.dtype("float32"))


def two_codecs() -> tuple[Identity, WholeAndPart]:
    return IDENTITY, WholeAndPart(jnp.float32(0.5))


def test_copy_on_write_and_guards_take_all_arrays_of_all_groups() -> None:
    harness = Harness(SMALL, SHAPE, two_codecs())
    (parent,) = harness.open()
    harness.append({parent: 6})
    children = harness.fork([parent] * 2)
    harness.append(dict.fromkeys([*children, parent], 3))
    assert harness.ledger()["blocks_copied"] == 2
    harness.free([children[0], parent])


def test_bytes_are_those_of_the_codecs() -> None:
    # Two layers of one head, 2 + 2 float32; a layer of two heads, 1 bfloat16, 2 float32, 2 int32.
    token = 2 * 1 * (8 + 8) + 1 * 2 * (2 + 8 + 8)
    assert kv.block_bytes(SHAPE, block_size=4, codecs=two_codecs()) == 4 * token
    assert kv.init(SMALL, SHAPE, codecs=two_codecs()).pool.block_bytes == 4 * token


def test_a_layer_is_found_in_its_group() -> None:
    pool = kv.init(SMALL, SHAPE).pool
    assert [pool.group_of(layer) for layer in range(3)] == [(0, 0), (1, 0), (0, 1)]
    with pytest.raises(ValueError, match="layer 3 is in none"):
        pool.group_of(3)


def test_keys_are_kept_in_the_asked_dtype() -> None:
    (group,) = kv.init(SMALL, SHAPE[:1], dtype=jnp.bfloat16).pool.groups
    assert {name: array.dtype for name, array in group.arrays.items()} == {
        "k": jnp.bfloat16,
        "v": jnp.bfloat16,
    }
    assert group.arrays["k"].shape == (2, 2 * 9 + 1, 1, 4, 2)


def test_blocks_are_copied_by_the_policy_of_the_cache() -> None:
    seen = []

    class Watching(WholeAndPart):
        def copy_blocks(
            self, stored: Stored, source: Array, destination: Array, policy: KernelPolicy
        ) -> dict[str, Array]:
            seen.append(policy)
            return super().copy_blocks(stored, source, destination, policy)

    policy = KernelPolicy("xla", prefill_chunk=7)
    cache = kv.init(SMALL, SHAPE[1:], codecs=(Watching(jnp.float32(0.5)),), policy=policy)
    jax.eval_shape(kv.append, cache, jnp.zeros(2, int), jnp.zeros((2, 1), int), jnp.ones(2, int))
    assert seen == [policy]


def test_a_cache_prints_as_one_line_of_shapes() -> None:
    cache = kv.init(CacheConfig(num_blocks=5, num_slots=3, max_context=8, block_size=4), SHAPE[:1])
    assert repr(cache) == (
        "Cache(pool=KVPool(groups=(LayerGroup(arrays={k=f32[2,5,1,4,2], v=f32[2,5,1,4,2]}, "
        "codec=Identity(head_dim=2, dtype=float32), layers=(0, 2))), tokens=i32[5,4], "
        "ref_count=i32[5]), table=i32[3,2], length=i32[3], alive=bool[3], error=i32[3], "
        "misuse=i32[], peak_blocks=i32[], blocks_short=i32[], ledger=Ledger(7 × u32[2]), "
        "max_context=8, policy=KernelPolicy())"
    )


class TwoGroupMachine(CacheMachine):
    """Random calls on two groups of layers with codecs of their own."""

    def make_harness(self) -> Harness:
        return Harness(SMALL, SHAPE, two_codecs())


TwoGroupMachine.TestCase.settings = settings(max_examples=12, stateful_step_count=40)
TestTwoGroupMachine = pytest.mark.slow(TwoGroupMachine.TestCase)
