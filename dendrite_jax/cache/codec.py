"""How keys and values are kept: codecs, and the groups of layers that have one in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache.array_struct import ArrayStruct
from dendrite_jax.kernels.copy_blocks import copy_blocks
from dendrite_jax.kernels.policy import KernelPolicy

Stored = Mapping[str, Array]
"""Encoded keys and values by the names of a codec's arrays; the last axis is an array's width."""


@dataclass(frozen=True)
class GroupShape:
    """Layers of a model whose keys and values have one shape."""

    layers: tuple[int, ...]
    """The model's layers, ascending; the first axis of the group's arrays is in this order."""
    num_kv_heads: int
    head_dim: int


KVShape = tuple[GroupShape, ...]
"""The keys and values of a model: every layer is in one group."""


def uniform_shape(*, num_layers: int, num_kv_heads: int, head_dim: int) -> KVShape:
    """The shape of a model whose layers are all alike: one group."""
    return (GroupShape(tuple(range(num_layers)), num_kv_heads, head_dim),)


class StoredArray(NamedTuple):
    """One of the arrays that a codec keeps."""

    name: str
    width: int
    """Elements that one token of one kv head takes."""
    dtype: jnp.dtype


class Codec(Protocol):
    """How the keys and values of one group are kept; a pytree whose leaves are its constants.

    What it makes of a token depends on that token alone, so that fork, copy-on-write and replay
    stay exact.
    """

    @property
    def arrays(self) -> tuple[StoredArray, ...]:
        """The arrays that a token of one kv head takes."""
        ...

    def encode(self, k: Array, v: Array) -> Stored:
        """[..., head_dim] keys and values as kept, [..., width] by name."""
        ...

    def decode(self, stored: Stored) -> tuple[Array, Array]:
        """The keys and values [..., head_dim] that are kept as `stored`."""
        ...

    def copy_blocks(
        self, stored: Stored, source: Array, destination: Array, policy: KernelPolicy
    ) -> dict[str, Array]:
        """Copies blocks i32[n] of [layers, blocks, kv_heads, block_size, width] arrays, in place.

        A destination that is no block copies nothing.
        """
        ...


class Identity(ArrayStruct):
    """Keys and values as they are, in one dtype."""

    head_dim: int = struct.field(pytree_node=False)
    dtype: jnp.dtype = struct.field(pytree_node=False)

    @property
    def arrays(self) -> tuple[StoredArray, ...]:
        return tuple(StoredArray(name, self.head_dim, self.dtype) for name in ("k", "v"))

    def encode(self, k: Array, v: Array) -> Stored:
        return {"k": k.astype(self.dtype), "v": v.astype(self.dtype)}

    def decode(self, stored: Stored) -> tuple[Array, Array]:
        return stored["k"], stored["v"]

    def copy_blocks(
        self, stored: Stored, source: Array, destination: Array, policy: KernelPolicy
    ) -> dict[str, Array]:
        k, v = copy_blocks(stored["k"], stored["v"], source, destination, policy=policy)
        return {"k": k, "v": v}


def identity_codecs(shape: KVShape, dtype: jax.typing.DTypeLike) -> tuple[Identity, ...]:
    """The codecs that keep the groups of a shape as they are."""
    return tuple(Identity(group.head_dim, jnp.dtype(dtype)) for group in shape)


class LayerGroup(ArrayStruct):
    """The blocks of the layers that have kv heads and codec in common."""

    arrays: dict[str, Array]  # [layers, blocks, kv_heads, block_size, width] each, by name
    codec: Codec
    layers: tuple[int, ...] = struct.field(pytree_node=False)
    """The model's layers, in the order of the arrays' first axis."""

    @classmethod
    def zeros(cls, shape: GroupShape, codec: Codec, blocks: int, block_size: int) -> LayerGroup:
        """Blocks without contents."""
        axes = (len(shape.layers), blocks, shape.num_kv_heads, block_size)
        arrays = {a.name: jnp.zeros((*axes, a.width), a.dtype) for a in codec.arrays}
        return cls(arrays=arrays, codec=codec, layers=shape.layers)

    @property
    def block_bytes(self) -> int:
        """Bytes of one block in all the group's layers."""
        return sum(array.nbytes // array.shape[1] for array in self.arrays.values())

    def copy_blocks(self, source: Array, destination: Array, policy: KernelPolicy) -> LayerGroup:
        """The group after the copies of `Codec.copy_blocks`."""
        arrays = self.codec.copy_blocks(self.arrays, source, destination, policy)
        return self.replace(arrays=arrays)

    def fill(self, blocks: Array, value: int) -> LayerGroup:
        """Sets every element of the blocks bool[blocks]."""
        return self.replace(
            arrays={
                name: jnp.where(_per_block(blocks), jnp.asarray(value).astype(array.dtype), array)
                for name, array in self.arrays.items()
            }
        )

    def holds(self, value: int) -> Array:
        """bool[blocks]: whether every element of a block is what `fill` sets."""
        equal = [
            jnp.all(array == jnp.asarray(value).astype(array.dtype), axis=(0, 2, 3, 4))
            for array in self.arrays.values()
        ]
        return jnp.all(jnp.stack(equal), axis=0)

    def gather(self, source: Array) -> LayerGroup:
        """A group of other blocks: block i is a copy of source[i], zeros where that is negative."""
        return self.replace(
            arrays={
                name: jnp.where(_per_block(source >= 0), array[:, jnp.maximum(source, 0)], 0)
                for name, array in self.arrays.items()
            }
        )


def block_bytes(
    shape: KVShape,
    *,
    dtype: jax.typing.DTypeLike = jnp.float32,
    block_size: int = 16,
    codecs: Sequence[Codec] | None = None,
) -> int:
    """Bytes of one block: the keys and values of `block_size` tokens in every layer.

    Args:
      shape: the model's groups of layers.
      dtype: what keys and values are kept in without `codecs`.
      block_size: tokens a block.
      codecs: the codec of each group; None keeps them as they are.
    """
    codecs = identity_codecs(shape, dtype) if codecs is None else codecs
    return block_size * sum(
        len(group.layers) * group.num_kv_heads * sum(a.width * a.dtype.itemsize for a in c.arrays)
        for group, c in zip(shape, codecs, strict=True)
    )


def _per_block(flags: Array) -> Array:
    """bool[blocks] that broadcasts to [layers, blocks, kv_heads, block_size, width]."""
    return flags[:, None, None, None]
