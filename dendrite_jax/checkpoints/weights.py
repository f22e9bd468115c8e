"""Tensors of a checkpoint to parameters on the device.

Each parameter is fused in one host buffer and put on the device before the next but one is read,
so the host holds two parameters at most, beside the mapped pages of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jax.typing import DTypeLike

from dendrite_jax.checkpoints.safetensors_file import Checkpoint

Device: TypeAlias = jax.Device | Sharding
Placement: TypeAlias = Device | Callable[[str, tuple[int, ...]], Device]
"""Where parameters go: one device or sharding for all, or a function of a parameter's path (such as
`layers.3.qkv`) and shape."""

_ALIGNMENT = 64


@dataclass(frozen=True)
class Tensor:
    """One tensor of the checkpoint."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Param:
    """One parameter of a model: `parts` concatenated along axis 0."""

    key: str
    layer: int | None
    """Index in `layers`; None for a parameter outside the layers."""
    parts: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        first = self.parts[0].shape
        return (sum(part.shape[0] for part in self.parts), *first[1:])

    @property
    def path(self) -> str:
        """The name of the parameter for placement, such as `layers.3.qkv`."""
        return self.key if self.layer is None else f"layers.{self.layer}.{self.key}"


def read_params(
    checkpoint: Checkpoint,
    layout: Sequence[Param],
    dtype: DTypeLike | None = None,
    *,
    placement: Placement | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[jax.Array]:
    """The parameters of a layout, one after the other.

    Args:
      checkpoint: holds every tensor of the layout.
      layout: the parameters.
      dtype: of the parameters, a floating dtype; None keeps each one's dtype in the checkpoint
        (where fused tensors differ, their common type).
      placement: device or sharding of each parameter; None = jax's default device.
      progress: called after each parameter with the bytes of the layout read so far and in all;
        the last call has both equal.

    Raises:
      WeightsError: a tensor is missing, has the wrong shape or a dtype other than float32,
        float16 and bfloat16; raised before anything is put on a device.
      ValueError: `dtype` is not a floating dtype.
    """
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype = {np.dtype(dtype).name}: parameters need a floating dtype")
    sources = [
        [checkpoint.tensor(part.name, part.shape) for part in param.parts] for param in layout
    ]
    total = sum(part.nbytes for parts in sources for part in parts)

    def read() -> Iterator[jax.Array]:
        done = 0
        previous: jax.Array | None = None
        for param, parts in zip(layout, sources, strict=True):
            array = jax.device_put(_fuse(param, parts, dtype), _place(placement, param))
            if previous is not None:
                previous.block_until_ready()
            previous = array
            done += sum(part.nbytes for part in parts)
            if progress is not None:
                progress(done, total)
            yield array

    return read()


def _fuse(param: Param, parts: list[np.ndarray], dtype: DTypeLike | None) -> np.ndarray:
    target = np.dtype(jnp.result_type(*parts) if dtype is None else dtype)
    fused = _aligned_empty(param.shape, target)
    start = 0
    for part in parts:
        fused[start : start + len(part)] = part
        start += len(part)
    return fused


def _aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that the CPU backend can take over as it is, where it would copy a less aligned."""
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _place(placement: Placement | None, param: Param) -> Device | None:
    if placement is None or isinstance(placement, (jax.Device, Sharding)):
        return placement
    return placement(param.path, param.shape)
