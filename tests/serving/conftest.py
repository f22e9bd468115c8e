"""One compiled engine for all tests of the border, empty before and after each."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from dendrite_jax.serving import Engine
from models.tiny_checkpoint import write_checkpoint

MAX_CONTEXT, NUM_SLOTS, NUM_BLOCKS = 64, 6, 8


@pytest.fixture(scope="session")
def shared_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    # Each program runs for milliseconds; optimising it takes longer.
    jax.config.update("jax_disable_most_optimizations", True)
    folder = tmp_path_factory.mktemp("checkpoint")
    tokens = write_checkpoint(folder)
    engine = Engine.load(
        folder, max_context=MAX_CONTEXT, num_slots=NUM_SLOTS, num_blocks=NUM_BLOCKS
    )
    assert engine.tokenizer.vocab_size == tokens < engine.model.vocab_size
    yield engine
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def engine(shared_engine: Engine) -> Iterator[Engine]:
    yield shared_engine
    shared_engine.free(np.flatnonzero(np.asarray(shared_engine.state.cache.alive)).tolist())
    stats = shared_engine.stats()
    assert stats["branches"] == stats["blocks_used"] == 0
    assert stats["blocks_free"] == NUM_BLOCKS
