"""The optimiser step of the embedded model, many of them to one call of the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.contrib import MuonDimensionNumbers, scale_by_muon

from dendrite_jax.models.config import AttentionSpec, LayerSpec, MlpSpec, ModelConfig
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.training.network import Attention, Params, forward, init_params
from dendrite_jax.tasks.game24.training.sampling import (
    ARITHMETIC,
    POLICY,
    VERDICT,
    Mix,
    Rows,
    Tables,
    sample_json,
    sample_text,
)

_MUON_STEP_RMS = 0.2
"""Muon's orthogonal updates scaled to the size of Adam's, so that both share a learning rate."""


@dataclass(frozen=True)
class TrainOptions:
    """Everything that fixes a run but the model's shape and the number of steps."""

    seed: int = 0
    rows: int = 4096
    json_rows: int = 256
    learning_rate: float = 2e-3
    final_rate: float = 0.02  # of the learning rate, at the end of the cosine
    warmup_steps: int = 200
    weight_decay: float = 0.1
    optimizer: str = "adamw"  # or "muon": for the layers' matrices, Adam for the rest
    policy_weight: float = 0.5
    verdict_weight: float = 4.0
    ema_decay: float = 0.999
    steps_per_call: int = 50
    compute_dtype: str = "bfloat16"
    attention: Attention = "xla"
    mix: Mix = field(default_factory=Mix)


class TrainState(NamedTuple):
    """What a step changes; all of it on the device."""

    params: Params  # float32
    average: Params  # float32, exponential moving average of params
    optimizer: optax.OptState
    key: jax.Array
    step: jax.Array  # i32[]


class StepMetrics(NamedTuple):
    """Means over the steps of one call."""

    policy_loss: jax.Array
    arithmetic_loss: jax.Array
    verdict_loss: jax.Array
    verdict_accuracy: jax.Array
    tokens: jax.Array  # trained and untrained, padding excluded, per step


def llama_config(
    hidden: int = 256, layers: int = 4, heads: int = 4, kv_heads: int = 2, intermediate: int = 768
) -> ModelConfig:
    """The Llama shape of the embedded model."""
    return ModelConfig(
        architecture="LlamaForCausalLM",
        vocab_size=vocab.VOCABULARY_SIZE,
        hidden_size=hidden,
        layers=layers
        * (LayerSpec(AttentionSpec(heads, kv_heads, hidden // heads), MlpSpec(intermediate)),),
        max_position=512,
        tie_word_embeddings=True,
        bos_id=vocab.BOS,
        eos_ids=(vocab.EOS,),
    )


def init_state(config: ModelConfig, options: TrainOptions) -> TrainState:
    """Random parameters and an empty optimiser, from the seed alone."""
    init_key, data_key = jax.random.split(jax.random.key(options.seed))
    params = init_params(init_key, config)
    return TrainState(
        params=params,
        average=jax.tree.map(jnp.copy, params),
        optimizer=_optimizer(options).init(params),
        key=data_key,
        step=jnp.int32(0),
    )


def make_train_call(
    config: ModelConfig, options: TrainOptions
) -> Callable[[TrainState, Tables, jax.Array], tuple[TrainState, StepMetrics]]:
    """The jitted function of `steps_per_call` steps.

    It takes the state, which is donated, the tables that it samples its batches from, and the total
    number of steps, f32[], which sets the cosine.
    """
    optimizer = _optimizer(options)

    def one_step(
        tables: Tables, total: jax.Array, state: TrainState, _: None
    ) -> tuple[TrainState, StepMetrics]:
        key, text_key, json_key = jax.random.split(state.key, 3)
        batches = [sample_text(text_key, tables, options.mix, options.rows)]
        if options.json_rows:
            batches.append(sample_json(json_key, tables, options.mix, options.json_rows))
        loss = partial(_loss, batches=batches, config=config, options=options)
        gradient, metrics = jax.grad(loss, has_aux=True)(state.params)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer, state.params)
        rate = _learning_rate(state.step, total, options)
        params = jax.tree.map(lambda p, u: p - rate * u, state.params, updates)
        # A short memory at first, so that the average forgets the random start.
        decay = jnp.minimum(options.ema_decay, (state.step + 1) / (state.step + 20))
        average = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.average, params)
        return TrainState(params, average, optimizer_state, key, state.step + 1), metrics

    @partial(jax.jit, donate_argnums=0)
    def train_call(
        state: TrainState, tables: Tables, total: jax.Array
    ) -> tuple[TrainState, StepMetrics]:
        state, metrics = jax.lax.scan(
            partial(one_step, tables, total), state, length=options.steps_per_call
        )
        return state, jax.tree.map(lambda metric: metric.mean(0), metrics)

    return train_call


def _loss(
    params: Params, batches: list[Rows], config: ModelConfig, options: TrainOptions
) -> tuple[jax.Array, StepMetrics]:
    """The weighted mean of next-token losses over all batches."""
    cast = jax.tree.map(lambda p: p.astype(options.compute_dtype), params)
    weight_of = jnp.array([options.policy_weight, 1.0, options.verdict_weight])
    sums = [_batch_sums(cast, batch, config, options.attention) for batch in batches]
    losses, counts, correct, tokens = (sum(parts) for parts in zip(*sums, strict=True))
    means = losses / jnp.maximum(counts, 1)
    metrics = StepMetrics(
        means[POLICY], means[ARITHMETIC], means[VERDICT], correct / counts[VERDICT], tokens
    )
    return jnp.sum(weight_of * losses) / jnp.sum(weight_of * counts), metrics


def _batch_sums(
    params: Params, batch: Rows, config: ModelConfig, attention: Attention
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Summed losses f32[3] and counts f32[3] by kind, right verdicts and tokens, f32[] each."""
    logits = forward(params, batch.tokens[:, :-1], config, attention).astype(jnp.float32)
    wanted, kind = batch.tokens[:, 1:], batch.kind[:, 1:]
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
    of_kind = kind[..., None] == jnp.arange(3)
    losses = jnp.sum(jnp.where(of_kind, loss[..., None], 0.0), axis=(0, 1))
    counts = jnp.sum(of_kind, axis=(0, 1)).astype(jnp.float32)
    correct = jnp.sum((logits.argmax(-1) == wanted) & (kind == VERDICT)).astype(jnp.float32)
    tokens = jnp.sum(batch.tokens != vocab.PAD).astype(jnp.float32)
    return losses, counts, correct, tokens


def _learning_rate(step: jax.Array, total: jax.Array, options: TrainOptions) -> jax.Array:
    """Linear warm-up times a cosine from 1 to `final_rate`."""
    progress = jnp.minimum(step / total, 1.0)
    cosine = 0.5 * (1 + jnp.cos(jnp.pi * progress))
    warmup = jnp.minimum((step + 1) / options.warmup_steps, 1.0)
    return options.learning_rate * warmup * (options.final_rate + (1 - options.final_rate) * cosine)


def _optimizer(options: TrainOptions) -> optax.GradientTransformation:
    """Clipped Adam or Muon with decoupled weight decay on matrices, at learning rate 1."""
    adam = optax.scale_by_adam(b1=0.9, b2=0.98)
    if options.optimizer == "muon":
        muon = scale_by_muon(weight_dimension_numbers=_all_plain_matrices)
        muon = optax.chain(muon, optax.stateless(_scale_to_adam))
        scale = optax.partition({"muon": muon, "adam": adam}, _muon_labels)
    elif options.optimizer == "adamw":
        scale = adam
    else:
        raise ValueError(f"optimizer: {options.optimizer!r} is neither 'adamw' nor 'muon'")
    return optax.chain(
        optax.clip_by_global_norm(1.0),
        scale,
        optax.add_decayed_weights(options.weight_decay, mask=_is_matrix),
    )


def _muon_labels(params: Params) -> Any:
    """`muon` for the layers' matrices, `adam` for norms and the embedding."""
    labels = jax.tree.map(lambda p: "muon" if p.ndim == 2 else "adam", params)
    return labels | {"embed": "adam"}


def _all_plain_matrices(updates: Params) -> Any:
    """Muon's description of each leaf; its default stumbles over the leaves masked out."""
    return jax.tree.map(lambda _: MuonDimensionNumbers(), updates)


def _scale_to_adam(updates: Params, _: Params | None = None) -> Params:
    """Gives each orthogonal update (entries of about 1/√max(shape)) Adam's typical size."""
    return jax.tree.map(lambda u: u * _MUON_STEP_RMS * max(u.shape) ** 0.5, updates)


def _is_matrix(params: Params) -> Any:
    return jax.tree.map(lambda p: p.ndim == 2, params)
