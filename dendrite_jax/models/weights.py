"""Checkpoint to decoder parameters on the device.

Each parameter is fused in one host buffer and put on the device before the next but one is read,
so the host holds two parameters at most, beside the mapped pages of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jax.typing import DTypeLike

from dendrite_jax.checkpoints.safetensors_file import SafetensorsFile, WeightsError, open_checkpoint
from dendrite_jax.models.config import ModelConfig
from dendrite_jax.models.decoder import Params
from dendrite_jax.models.layout import Param, Tensor, build_params, param_layout

Device: TypeAlias = jax.Device | Sharding
Placement: TypeAlias = Device | Callable[[str, tuple[int, ...]], Device]
"""Where parameters go: one device or sharding for all, or a function of a parameter's path (such as
`layers.3.qkv`) and shape."""

_IGNORED_SUFFIX = ".rotary_emb.inv_freq"
_ALIGNMENT = 64


def load_params(
    folder: str | Path,
    config: ModelConfig,
    dtype: DTypeLike | None = None,
    *,
    placement: Placement | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Params:
    """Loads the weights of a Hugging Face model folder.

    Args:
      folder: holds `model.safetensors`, or its shards and `model.safetensors.index.json`.
      config: the configuration of the same folder.
      dtype: of the parameters, a floating dtype; None keeps each one's dtype in the checkpoint
        (where fused tensors differ, their common type).
      placement: device or sharding of each parameter; None = jax's default device.
      progress: called after each parameter with the bytes of the checkpoint read so far and in
        all; the last call has both equal.

    Returns:
      The parameters in the layout of `Params`.

    Raises:
      WeightsError: a tensor is missing, has the wrong shape or a dtype other than float32,
        float16 and bfloat16, is not of this configuration, or a file is damaged; raised before
        anything is put on a device.
      ValueError: `dtype` is not a floating dtype.
    """
    if dtype is not None and not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"dtype = {np.dtype(dtype).name}: parameters need a floating dtype")
    folder = Path(folder)
    files = open_checkpoint(folder)
    layout = tuple(param_layout(config))
    sources = {part.name: _source(folder, files, part) for param in layout for part in param.parts}
    _reject_unused(files, sources, config)
    total = sum(source.nbytes for source in sources.values())
    done = 0
    previous: jax.Array | None = None

    def make(param: Param) -> jax.Array:
        nonlocal done, previous
        parts = [sources[part.name] for part in param.parts]
        array = jax.device_put(_fuse(param, parts, dtype), _place(placement, param))
        if previous is not None:
            previous.block_until_ready()
        previous = array
        done += sum(part.nbytes for part in parts)
        if progress is not None:
            progress(done, total)
        return array

    return build_params(config, make)


def _source(folder: Path, files: Mapping[str, SafetensorsFile], tensor: Tensor) -> np.ndarray:
    if tensor.name not in files:
        raise WeightsError(
            f"{folder}: tensor {tensor.name} is missing, expected with shape {tensor.shape}"
        )
    source = files[tensor.name].tensor(tensor.name)
    if source.shape != tensor.shape:
        raise WeightsError(
            f"{files[tensor.name].path}: tensor {tensor.name} has shape {source.shape}, "
            f"expected {tensor.shape}"
        )
    return source


def _reject_unused(
    files: Mapping[str, SafetensorsFile], sources: Mapping[str, Any], config: ModelConfig
) -> None:
    # A tied checkpoint may repeat the embedding as lm_head; old ones store the rotary frequencies.
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    unused = [
        name for name in files.keys() - sources.keys() - tied if not name.endswith(_IGNORED_SUFFIX)
    ]
    if unused:
        first = min(unused)
        raise WeightsError(
            f"{files[first].path}: tensor {first} does not belong to a {config.architecture} of "
            f"{config.num_layers} layers with this configuration ({len(unused)} such tensors)"
        )


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
