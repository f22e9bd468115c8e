"""`jax.jit` for tests: each function is compiled once and runs for milliseconds."""

from __future__ import annotations

from functools import partial

import jax

# LLVM's optimisations take longer than they save here.
fast_jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
