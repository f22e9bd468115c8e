"""Settings that all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import settings

# Examples are derived from the test, so that every run checks the same ones; the first example
# of a test pays for compilation, so that there is no deadline. To search further:
# pytest --hypothesis-profile=explore
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, max_examples=1000)
settings.load_profile("repeatable")

# These files import torch, transformers, triton or playwright at their top, which only
# `make test-oracle` has.
collect_ignore_glob = [] if os.environ.get("DENDRITE_ORACLE") == "1" else ["*_oracle.py"]


MAPPED_REGIONS = Path("/proc/self/maps")
MOST_MAPPED_REGIONS = 30_000
"""Linux gives a process 65,530 by default; each compiled function takes several."""


XLA_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
    # Both take longer in the nested loops of a search than all other passes together.
    "--xla_disable_hlo_passes=simplify-while-loops,while-loop-invariant-code-motion",
]
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    # The emitters that came before compile in half the time; later versions have one kind only.
    XLA_FLAGS.append("--xla_cpu_use_fusion_emitters=false")


def pytest_configure(config: pytest.Config) -> None:
    """Compiles fast rather than fast code, and keeps it: most of a run is compilation."""
    gc.set_threshold(100_000, 50, 1000)  # most of the objects that tracing makes stay
    os.environ.setdefault("XLA_FLAGS", " ".join(XLA_FLAGS))
    if config.pluginmanager.has_plugin("cacheprovider"):
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(config.cache.mkdir("xla")))
        os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests of the files named above, before marks select what runs.

    Files with slow tests come first, so that the workers finish together.
    """
    for item in items:
        if item.path.stem.endswith("_oracle"):
            item.add_marker("oracle")
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True, scope="module")
def _room_to_compile() -> Iterator[None]:
    """Drops compiled functions before XLA dies of having no room to map another."""
    yield
    if MAPPED_REGIONS.exists():
        with MAPPED_REGIONS.open() as regions:
            crowded = sum(1 for _ in regions) > MOST_MAPPED_REGIONS
        if crowded:
            import jax  # later than the settings that it reads when it is imported

            jax.clear_caches()
            gc.collect()
