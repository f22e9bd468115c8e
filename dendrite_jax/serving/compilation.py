"""The persistent compilation cache: a second run starts without compiling."""

from __future__ import annotations

import os
from pathlib import Path

import jax

CACHE_VARIABLE = "DENDRITE_COMPILATION_CACHE"
"""Environment variable that moves the cache; an empty value turns it off."""

COMMAND_BUFFERS = (
    "FUSION",
    "CUBLAS",
    "CUDNN",
    "CUSTOM_CALL",
    "CONDITIONAL",
    "DYNAMIC_SLICE_FUSION",
)
"""What XLA may capture in CUDA graphs. Not WHILE: with it a compiled beam search of few lanes is
right at its first call and wrong from its second on (jaxlib 0.11.2), since the captured loop seems
to read its predicate before the call has written it."""

LOOP_OPTIONS: dict[str, str | int] = {
    "xla_gpu_enable_command_buffer": ",".join(COMMAND_BUFFERS),
    "xla_gpu_graph_min_graph_size": 1,
    "xla_gpu_enable_triton_gemm": False,
}
"""`jax.jit(..., compiler_options=)` for a decode loop: CUDA graphs, and products by cuBLAS alone.

The graphs hold the body of a loop, whose many small kernels then cost no launch each. Where XLA may
use Triton it also splits products that cuBLAS multiplies faster whole.
"""


def loop_options() -> dict[str, str | int] | None:
    """`LOOP_OPTIONS` where the default backend is a GPU, None elsewhere, for `jax.jit`."""
    return dict(LOOP_OPTIONS) if jax.default_backend() == "gpu" else None


def compilation_cache_folder() -> Path | None:
    """Where compiled programs are kept, or None when the environment turns the cache off."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen is not None:
        return Path(chosen) if chosen else None
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "dendrite-jax" / "xla"


def enable_compilation_cache() -> Path | None:
    """Keeps compiled programs on disk for the next process; the folder, or None if off."""
    folder = compilation_cache_folder()
    if folder is not None:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return folder
