"""Running Triton kernels without a GPU: Triton's interpreter over torch CPU tensors."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # read by triton when a kernel is defined

from typing import Any

import ml_dtypes
import numpy as np
import torch

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def tensor(array: Any) -> torch.Tensor:
    """A torch copy of an array, bfloat16 included."""
    array = np.asarray(array)
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def poisoned(shape: tuple[int, ...], dtype: str) -> torch.Tensor:
    """An output full of NaN, so that an element that no program writes is seen."""
    return torch.full(shape, float("nan"), dtype=DTYPES[dtype])


def launch(kernel: Any, grid: tuple[int, ...], *operands: Any, **constants: Any) -> None:
    """Interprets all programs of the grid; arrays become tensors, outputs come as tensors."""
    converted = [
        operand if operand is None or isinstance(operand, int | torch.Tensor) else tensor(operand)
        for operand in operands
    ]
    kernel[grid](*converted, **constants)
