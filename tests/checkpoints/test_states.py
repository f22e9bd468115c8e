"""A restored state goes on exactly as the one that was saved."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import checkpoints, engine
from dendrite_jax.cache import CacheConfig, debug
from dendrite_jax.engine import GenerateConfig, State
from dendrite_jax.testing import BigramModel

VOCAB = 8
MODEL = BigramModel(jnp.asarray(np.random.default_rng(0).normal(0, 1, (VOCAB, VOCAB)), jnp.float32))
CONFIG = CacheConfig(num_blocks=16, num_slots=6, max_context=32, block_size=4, debug=True)


@cache
@jax.jit
def forked_state() -> tuple[State, jax.Array]:
    """Two children of one prompt, which share its blocks."""
    state = engine.init(MODEL, CONFIG)
    state, root = engine.open_branches(state, jax.random.split(jax.random.key(0), 1))
    prompt = jnp.array([[1, 2, 3, 4, 5, 6]])
    state, _ = engine.prefill(MODEL, state, root, prompt, jnp.array([6]))
    return engine.fork(state, jnp.repeat(root, 2))


def test_a_restored_state_generates_the_same_tokens(tmp_path: Path) -> None:
    state, children = forked_state()
    checkpoints.save(tmp_path / "state", state)
    like = jax.eval_shape(lambda: engine.init(MODEL, CONFIG))
    restored = checkpoints.restore(tmp_path / "state", like)
    debug.check(restored.cache)
    generate = jax.jit(engine.generate, static_argnames="config")
    shape = GenerateConfig(12)
    _, expected = generate(MODEL, state, children, config=shape)
    _, found = generate(MODEL, restored, children, config=shape)
    np.testing.assert_array_equal(found.tokens, expected.tokens)
    assert (expected.tokens[0] != expected.tokens[1]).any(), "the children draw from their own keys"


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    state, _ = forked_state()
    checkpoints.save(tmp_path / "state", state)
    other = CacheConfig(num_blocks=20, num_slots=6, max_context=32, block_size=4, debug=True)
    like = jax.eval_shape(lambda: engine.init(MODEL, other))
    with pytest.raises(ValueError, match=r"cache.pool.groups.0.arrays.k was saved with shape"):
        checkpoints.restore(tmp_path / "state", like)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere"):
        checkpoints.restore(tmp_path / "nowhere", forked_state()[0])


@pytest.fixture(scope="module")
def saved_on_four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose arrays were spread over four devices."""
    folder = tmp_path_factory.mktemp("sharded") / "state"
    run_on_devices("save", 4, folder)
    return folder


def run_on_devices(command: str, devices: int, folder: Path) -> None:
    script = Path(__file__).parent / "sharded_states.py"
    subprocess.run([sys.executable, script, command, str(devices), folder], check=True, timeout=300)


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_a_state_is_restored_to_the_devices_that_are_asked_for(
    saved_on_four: Path, devices: int
) -> None:
    run_on_devices("restore", devices, saved_on_four)
