"""Running Triton kernels without a GPU: Triton's interpreter over torch CPU tensors."""

from __future__ import annotations

import os

os.environ["TRITON_INTERPRET"] = "1"  # read by triton when a kernel is defined

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
import torch
import triton.language as tl
from triton.runtime.interpreter import TensorHandle, interpreter_builder

from dendrite_jax.kernels.copy_blocks import gpu as copy_blocks
from dendrite_jax.kernels.linear import gpu as linear
from dendrite_jax.kernels.paged_prefill import gpu as paged_prefill
from dendrite_jax.kernels.rope_append import gpu as rope_append
from dendrite_jax.kernels.tree_attention import entries
from dendrite_jax.kernels.tree_attention import gpu as tree_attention

_plain_dot = interpreter_builder.create_dot

LAUNCHERS = (copy_blocks, paged_prefill, rope_append, linear, tree_attention)


@pytest.fixture(autouse=True)
def interpreted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Triton launch goes to the interpreter instead of a CUDA device."""
    for module in LAUNCHERS:
        monkeypatch.setattr(module, "launch", launch)
    # The interpreter looks for it among the globals of whatever it runs.
    monkeypatch.setattr(entries, "tl", tl, raising=False)
    monkeypatch.setattr(interpreter_builder, "create_dot", _dot)


def launch(
    *operands: Any,
    kernel: Any,
    grid: tuple[int, ...],
    out_type: Any,
    num_warps: int,
    num_stages: int = 3,
    aliases: dict[int, int] | None = None,
    **constants: Any,
) -> Any:
    """`dendrite_jax.kernels.launch.launch`, by a host callback; outputs start as NaN."""
    out_types, structure = jax.tree.flatten(out_type)
    updated = {output: operand for operand, output in (aliases or {}).items()}
    arrays = {index: x for index, x in enumerate(operands) if not isinstance(x, int | None)}

    def run(*values: Any) -> Any:
        given = list(operands)
        for index, value in zip(arrays, values, strict=True):
            given[index] = _tensor(np.asarray(value))
        outputs = [
            given[updated[index]] if index in updated else _poisoned(kind)
            for index, kind in enumerate(out_types)
        ]
        fresh = [output for index, output in enumerate(outputs) if index not in updated]
        kernel[grid](*given, *fresh, **constants)
        results = [_array(output, kind) for output, kind in zip(outputs, out_types, strict=True)]
        return jax.tree.unflatten(structure, results)

    return jax.pure_callback(run, out_type, *arrays.values())


def _dot(a: Any, b: Any, addend: Any, *precision: Any) -> Any:
    """The interpreter's own product, but for bfloat16, which it would take for integers."""
    a, b = (
        TensorHandle(x.data.view(ml_dtypes.bfloat16).astype(np.float32), tl.float32)
        if x.data.dtype == np.uint16
        else x
        for x in (a, b)
    )
    return _plain_dot(a, b, addend, *precision)


@contextmanager
def recorded_loads(dimensions: int) -> Iterator[list[np.ndarray]]:
    """The unmasked values of every load of blocks with so many dimensions, in order."""
    loads: list[np.ndarray] = []
    load = interpreter_builder.create_masked_load

    def record(pointers: Any, mask: Any, *rest: Any) -> Any:
        loaded = load(pointers, mask, *rest)
        if loaded.data.ndim == dimensions:
            loads.append(loaded.data[mask.data])
        return loaded

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter_builder, "create_masked_load", record)
        yield loads


def _tensor(array: np.ndarray) -> torch.Tensor:
    """A copy as a tensor; numpy and torch share no bfloat16."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(torch.bfloat16)
    return torch.from_numpy(np.array(array))


def _poisoned(kind: jax.ShapeDtypeStruct) -> torch.Tensor:
    """An output full of NaN, so that an element that no program writes is seen."""
    return torch.full(kind.shape, float("nan"), dtype=getattr(torch, np.dtype(kind.dtype).name))


def _array(tensor: torch.Tensor, kind: jax.ShapeDtypeStruct) -> np.ndarray:
    """The way back from `_tensor`."""
    if tensor.dtype == torch.bfloat16:
        tensor = tensor.float()
    return tensor.numpy().astype(kind.dtype)
