"""The attention of a layer over the paged cache, and what layers of equal attention share."""

from __future__ import annotations

from itertools import zip_longest
from typing import NamedTuple

from flax import struct
from jax import Array

from dendrite_jax.cache import Appended, KVPool
from dendrite_jax.kernels.paged_prefill import paged_prefill
from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.kernels.rope_append import rope_append
from dendrite_jax.kernels.tree_attention import Plan, make_plan, tree_attention
from dendrite_jax.models.config import AttentionSpec, LayerSpec
from dendrite_jax.models.fusion import Arranged, Normed, Update


class LayerCache(struct.PyTreeNode):
    """Where a layer's keys and values are: the arrays of its group, and its place in them."""

    arrays: dict[str, Array]  # "k", "v": [layers, blocks, kv_heads, block_size, head_dim]
    place: Array  # i32[], a traced number, so that equal layers are one trace


class Step(NamedTuple):
    """What one forward pass tells layers of equal attention."""

    appended: Appended  # with the plan of these layers, if there is one
    rope: tuple[Array, Array]  # cosines and sines f32[lanes, tokens, head_dim / 2]


def attention(
    spec: LayerSpec, layer: Arranged, x: Normed, cache: LayerCache, step: Step
) -> tuple[Update, LayerCache]:
    """Appends the rows' keys and values and attends to what their lanes hold.

    Args:
      spec: of the layer.
      layer: its products.
      x: [lanes * tokens, hidden].
      cache: carried; updated in place.
      step: where the tokens go and stand.
    """
    place = step.appended
    lanes_and_tokens = place.block.shape
    q, k, v = rope_append(
        layer.qkv(x).reshape(*lanes_and_tokens, -1),
        step.rope,
        cache.arrays["k"],
        cache.arrays["v"],
        cache.place,
        place.block,
        place.offset,
        q_norm=layer.q_norm,
        k_norm=layer.k_norm,
        eps=spec.norm_eps,
        policy=layer.policy,
    )
    cache = cache.replace(arrays={"k": k, "v": v})
    attend = _decode if lanes_and_tokens[1] == 1 else _prefill
    attended = attend(spec.attention, q, cache, place, layer.policy)
    return layer.o(attended.reshape(x.x.shape[0], -1)), cache


def _decode(
    spec: AttentionSpec, q: Array, cache: LayerCache, place: Appended, policy: KernelPolicy
) -> Array:
    """One new token a lane."""
    out, _ = tree_attention(
        q[:, 0],
        cache.arrays["k"],
        cache.arrays["v"],
        cache.place,
        place.table,
        place.length,
        plan=place.plan,
        window=spec.window,
        policy=policy,
    )
    return out


def _prefill(
    spec: AttentionSpec, q: Array, cache: LayerCache, place: Appended, policy: KernelPolicy
) -> Array:
    """Several new tokens a lane, over the lane's prefix and over each other."""
    out, _ = paged_prefill(
        q,
        cache.arrays["k"],
        cache.arrays["v"],
        cache.place,
        place.table,
        place.start,
        place.length,
        window=spec.window,
        policy=policy,
    )
    return out


class Reading(NamedTuple):
    """What a plan of how to read block tables depends on; layers alike in it share one."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int | None

    @classmethod
    def of(cls, spec: LayerSpec) -> Reading:
        """How a layer's attention reads."""
        attention = spec.attention
        return cls(attention.heads, attention.kv_heads, attention.head_dim, attention.window)


def readings(layers: tuple[LayerSpec, ...]) -> dict[Reading, int]:
    """The ways in which layers read, in the order of the first layer of each, which is told too."""
    first: dict[Reading, int] = {}
    for index, spec in enumerate(layers):
        first.setdefault(Reading.of(spec), index)
    return first


def make_plans(
    layers: tuple[LayerSpec, ...],
    pool: KVPool,
    table: Array,
    length: Array,
    previous: tuple[Plan, ...] | None,
    policy: KernelPolicy,
) -> tuple[Plan, ...] | None:
    """The plans of a decode step, in the order of `readings`; None where kernels need none."""
    plans = []
    for (reading, layer), before in zip_longest(readings(layers).items(), previous or ()):
        plan = make_plan(
            table,
            length,
            pool.groups[pool.group_of(layer)[0]].arrays["k"],
            reading.heads,
            window=reading.window,
            previous=before,
            policy=policy,
        )
        if plan is None:
            return None
        plans.append(plan)
    return tuple(plans)
