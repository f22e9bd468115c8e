"""What the decoder traces and lowers, and in which dtypes it computes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dendrite_jax import engine
from dendrite_jax.cache import CacheConfig
from dendrite_jax.kernels.policy import KernelPolicy
from dendrite_jax.models import AttentionSpec, Decoder, LayerSpec, MlpSpec, ModelConfig, decoder
from dendrite_jax.models.families import param_layout
from dendrite_jax.models.families.layout import build_params
from dendrite_jax.models.fusion import Arranged
from models.dense_decoder import dense_logits
from models.tiny_models import uniform

CACHE = CacheConfig(num_blocks=6, num_slots=2, max_context=32)
TOKENS = np.array([[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1, 8, 2, 8, 1, 8]])


def model(specs: list[AttentionSpec], dtype: str = "float32") -> Decoder:
    """A decoder of these layers, width 24, 16 tokens; embedding in one dtype, the rest float32."""
    layers = tuple(LayerSpec(spec, MlpSpec(40)) for spec in specs)
    config = ModelConfig("LlamaForCausalLM", 16, 24, layers, max_position=64)

    def array(path: str, shape: tuple[int, ...]) -> jax.Array:
        noise = jnp.asarray(uniform(0, path, shape))
        return 1 + noise / 2 if len(shape) == 1 else 4 * shape[-1] ** -0.5 * noise

    layout = param_layout(config)
    arrays = [(param, array(param.path, param.shape)) for param in layout]
    params = build_params(config, arrays)
    params["embed"] = params["embed"].astype(dtype)
    return Decoder(params, config, KernelPolicy("xla"))


def logits(decoder: Decoder) -> jax.Array:
    """Of every position of TOKENS: all but the last by prefill, the last by a decode step."""
    state = engine.init(decoder, CACHE)
    state, ids = engine.open_branches(state, jax.random.split(jax.random.key(0), 2))
    tokens, count = jnp.asarray(TOKENS), jnp.full(2, TOKENS.shape[1] - 1)
    state, prefilled, _ = engine.score_tokens(decoder, state, ids, tokens[:, :-1], count)
    _, stepped = engine.step(decoder, state, ids, tokens[:, -1])
    return jnp.concatenate([prefilled, stepped.logits[:, None]], axis=1)


FULL = AttentionSpec(heads=4, kv_heads=2, head_dim=6)


@pytest.mark.parametrize(
    "specs",
    [
        [FULL, replace(FULL, window=3)] * 2,
        [FULL, AttentionSpec(heads=2, kv_heads=1, head_dim=10)] * 2,
        [FULL, replace(FULL, kv_heads=4, qk_norm=True, qkv_bias=True)],
    ],
    ids=["windows", "heads", "kv heads, norms and biases"],
)
def test_layers_may_differ(specs: list[AttentionSpec]) -> None:
    """Each layer follows its own spec, and keeps keys and values in its own group."""
    mixed = model(specs)
    got = jax.jit(logits)(mixed)
    want = dense_logits(mixed.config, mixed.params, TOKENS)
    # Chains of sums of 24, 24, 24 and 40 terms a layer, of 8 positions, and 24 at the end, each
    # rounded by 2⁻²⁴ of its size at most.
    tolerance = (len(specs) * (24 + 24 + 24 + 40 + 8) + 24) * 2**-24
    assert np.max(np.abs(got - want)) < tolerance * np.max(np.abs(want))


@pytest.mark.parametrize(
    ("layers", "kinds"), [([FULL] * 5, 1), ([FULL, replace(FULL, window=4)] * 3, 2)]
)
def test_equal_layers_are_traced_once(
    layers: list[AttentionSpec], kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced: list[LayerSpec] = []
    arrange = decoder.arrange

    def counted(spec: LayerSpec, *rest: Any) -> Arranged:
        traced.append(spec)
        return arrange(spec, *rest)

    monkeypatch.setattr(decoder, "arrange", counted)
    # A number of lanes that no other test has: traces are kept from one program to the next.
    cache = CacheConfig(num_blocks=24, num_slots=23, max_context=16)
    state = jax.eval_shape(partial(engine.init, config=cache), many := model(layers))
    lanes = jnp.arange(23)
    lowered = jax.jit(engine.step).lower(many, state, lanes, lanes)
    assert len(traced) == len(set(traced)) == kinds
    # Nobody reads the sum of the last layer, so that jax gives it a function of its own.
    assert lowered.as_text().count("func.func private @_layer") == kinds + 1


def test_a_narrow_embedding_narrows_nothing_else() -> None:
    """Activations, keys and values have the configuration's dtype, not the embedding's."""
    mixed = model([FULL], dtype="bfloat16")
    state = jax.eval_shape(partial(engine.init, config=CACHE), mixed)
    assert {group.arrays["k"].dtype for group in state.cache.pool.groups} == {np.dtype("float32")}
    want = dense_logits(mixed.config, mixed.params, TOKENS)
    assert np.max(np.abs(jax.jit(logits)(mixed) - want)) < 200 * 2**-24 * np.max(np.abs(want))
