"""Generation by the interpreted Triton kernels: a loop that keeps its plans, against plain XLA."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.tiny import tiny
from dendrite_jax import engine
from dendrite_jax.benchmarks.harness.shapes import SHAPES, random_model
from dendrite_jax.cache import CacheConfig
from dendrite_jax.engine import GenerateConfig, Sampling, StopRules
from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.kernels.tree_attention import gpu
from dendrite_jax.models import Decoder
from kernels.interpreter import interpreted  # noqa: F401
from kernels.tree_suite import small_tiles

WINDOWED = tiny(head_dim=64, windows=(None, 20))
CACHE = CacheConfig(num_blocks=24, num_slots=6, max_context=64)
PARENTS = np.array([0, 0, 1, -1], np.int32)


@jax.jit
def search(model: Decoder) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Children of two prompts, one of them idle, cross from a block into the next."""
    state = engine.init(model, CACHE)
    state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), 2))
    prompts = jax.random.randint(jax.random.key(1), (2, 29), 0, model.vocab_size)
    state, _ = engine.prefill(model, state, ids, prompts, jnp.array([29, 27]))
    state, children = engine.fork(state, jnp.asarray(PARENTS))
    sampling = Sampling(temperature=jnp.ones(len(PARENTS)))
    stop = StopRules.of([0])
    _, out = engine.generate(model, state, children, GenerateConfig(6), sampling, stop)
    return out.tokens, out.length, out.raw_logprobs


@pytest.mark.slow
def test_a_loop_generates_what_plain_xla_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "tree_tiles", small_tiles)
    monkeypatch.setitem(SHAPES, "windowed", WINDOWED)
    model = random_model("windowed", jnp.float32)
    tokens, length, logprobs = search(model.replace(policy=KernelPolicy("triton")))
    want_tokens, want_length, want_logprobs = search(model.replace(policy=KernelPolicy("xla")))
    np.testing.assert_array_equal(tokens, want_tokens)
    np.testing.assert_array_equal(length, want_length)
    np.testing.assert_allclose(logprobs, want_logprobs, rtol=0, atol=1e-4)
