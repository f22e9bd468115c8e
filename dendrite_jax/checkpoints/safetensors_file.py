"""Memory-mapped reading of the safetensors files of a model folder."""

from __future__ import annotations

import json
import mmap
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from dendrite_jax.checkpoints import hf_files

_DTYPES: dict[str, np.dtype] = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}


class WeightsError(ValueError):
    """A checkpoint that is damaged, incomplete or not of the model that was asked for."""


class SafetensorsFile:
    """One safetensors file, mapped read-only: tensors are views of the file's pages.

    `safetensors.safe_open` checks the header; its numpy tensors are copies, so the views are made
    here.
    """

    def __init__(self, path: Path) -> None:
        """Opens and checks the file; raises `WeightsError` when it is damaged or unreadable."""
        self.path = path
        try:
            with safe_open(path, framework="np"):
                pass
            with path.open("rb") as file:
                self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as exc:
            raise WeightsError(f"{path}: cannot be read ({exc.strerror or exc})") from exc
        except SafetensorError as exc:
            raise WeightsError(
                f"{path}: not a whole safetensors file of {path.stat().st_size} bytes ({exc})"
            ) from exc
        header_size = int.from_bytes(self._bytes[:8], "little")
        self._data_start = 8 + header_size
        self._header = json.loads(self._bytes[8 : self._data_start])
        self._header.pop("__metadata__", None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __contains__(self, name: str) -> bool:
        return name in self._header

    def tensor(self, name: str) -> np.ndarray:
        """A read-only view of the tensor `name`, in the dtype of the file."""
        entry = self._header[name]
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise WeightsError(
                f"{self.path}: tensor {name} has dtype {entry['dtype']}; "
                f"supported: {', '.join(_DTYPES)}"
            )
        start, end = entry["data_offsets"]
        flat = np.frombuffer(
            self._bytes, dtype, (end - start) // dtype.itemsize, self._data_start + start
        )
        return flat.reshape(entry["shape"])


class Checkpoint:
    """The tensors of a model folder, by name.

    An index may name tensors that no shard has, such as the output matrix of a tied model; that is
    an error only for a tensor that is asked for.
    """

    def __init__(
        self, folder: Path, files: dict[str, SafetensorsFile], absent: dict[str, str]
    ) -> None:
        """Holds what `open_checkpoint` found.

        Args:
          folder: the model folder.
          files: the file of each tensor.
          absent: of each tensor that the index names and no file has, what is wrong.
        """
        self.folder = folder
        self.files = files
        self.absent = absent

    def __contains__(self, name: str) -> bool:
        return name in self.files

    def names(self) -> set[str]:
        """Of all tensors that there are, or should be by the index."""
        return {*self.files, *self.absent}

    def tensor(self, name: str, shape: tuple[int, ...]) -> np.ndarray:
        """A read-only view of a tensor.

        Raises:
          WeightsError: there is none of that name, or its shape or dtype is another.
        """
        if name in self.absent:
            raise WeightsError(self.absent[name])
        if name not in self.files:
            raise WeightsError(
                f"{self.folder}: tensor {name} is missing, expected with shape {shape}"
            )
        file = self.files[name]
        tensor = file.tensor(name)
        if tensor.shape != shape:
            raise WeightsError(
                f"{file.path}: tensor {name} has shape {tensor.shape}, expected {shape}"
            )
        return tensor


def open_checkpoint(folder: Path) -> Checkpoint:
    """The checkpoint in `folder`.

    Reads `model.safetensors`, or the shards that `model.safetensors.index.json` names.

    Raises:
      WeightsError: neither is there, or the index or a shard is damaged.
    """
    single, index = folder / hf_files.WEIGHTS, folder / hf_files.WEIGHTS_INDEX
    if single.exists():
        file = SafetensorsFile(single)
        return Checkpoint(folder, dict.fromkeys(file, file), {})
    if not index.exists():
        raise WeightsError(
            f"{folder}: no weights, expected {hf_files.WEIGHTS} or {hf_files.WEIGHTS_INDEX}"
        )
    weight_map = hf_files.read_json(index, WeightsError).get("weight_map")
    if not isinstance(weight_map, dict):
        raise WeightsError(f"{index}: weight_map is missing or not an object")
    shards: dict[str, SafetensorsFile] = {}
    files, absent = {}, {}
    for tensor, name in weight_map.items():
        if not isinstance(name, str) or Path(name).name != name:
            raise WeightsError(f"{index}: tensor {tensor} is in {name!r}, expected a file name")
        if name not in shards and (folder / name).exists():
            shards[name] = SafetensorsFile(folder / name)
        if name not in shards:
            absent[tensor] = f"{index}: tensor {tensor} is in {name}, which does not exist"
        elif tensor not in shards[name]:
            absent[tensor] = f"{folder / name}: tensor {tensor} is missing, {index.name} has it"
        else:
            files[tensor] = shards[name]
    return Checkpoint(folder, files, absent)
