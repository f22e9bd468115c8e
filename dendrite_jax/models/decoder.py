"""The decoder: a fold over the specs of its layers, over the paged cache."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache import Appended, GroupShape, KVPool, KVShape
from dendrite_jax.kernels.linear import Dense, Weight, linear
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy
from dendrite_jax.kernels.tree_attention import Plan
from dendrite_jax.models.attention import LayerCache, Reading, Step, attention, make_plans, readings
from dendrite_jax.models.config import LayerSpec, ModelConfig
from dendrite_jax.models.fusion import Following, Norm, Stream, arrange, followings
from dendrite_jax.models.mlp import mlp
from dendrite_jax.models.rope import rope_table

Params = dict[str, Any]
"""Weights by name; matrices are [out, in] as in Hugging Face files.

embed [vocab, hidden] and final_norm [hidden], arrays; lm_head [vocab, hidden], a `Weight` (absent
when tied); and layers, a tuple of dicts: the `Weight`s qkv [(heads + 2 kv_heads) head_dim, hidden],
o [hidden, heads head_dim], gate_up [2 width, hidden] and down [hidden, width], each with an
optional bias (qkv_bias ...), and the arrays input_norm and post_norm [hidden], and optional q_norm
and k_norm [head_dim].
"""


@partial(jax.jit, static_argnames=("spec", "policy"))
def _layer(
    spec: LayerSpec,
    policy: KernelPolicy,
    weights: dict[str, Any],
    following: Following,
    x: Stream,
    cache: LayerCache,
    step: Step,
) -> tuple[Stream, LayerCache]:
    """One layer; jitted, so that layers of equal specs and shapes are traced and lowered once."""
    layer = arrange(spec, weights, following, policy)
    update, cache = attention(spec, layer, x.norm(layer.attention_norm), cache, step)
    x = x + update
    x = x + mlp(layer, x.norm(layer.mlp_norm))
    return x, cache


class Decoder(struct.PyTreeNode):
    """A model as a pytree: weights, and the static configuration beside them.

    On a GPU, a shape or dtype that the Triton kernels lack raises `UnsupportedError` when decode is
    traced; `KernelPolicy("xla")` runs any.
    """

    params: Params
    config: ModelConfig = struct.field(pytree_node=False)
    policy: KernelPolicy = struct.field(pytree_node=False, default=DEFAULT_POLICY)

    @property
    def dtype(self) -> jnp.dtype:
        """Of activations, keys and values."""
        return jnp.dtype(self.config.compute_dtype)

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def max_position(self) -> int:
        """Tokens of context that the model was made for."""
        return self.config.max_position

    @property
    def kv_shape(self) -> KVShape:
        """The keys and values of the layers; those of equal heads are one group."""
        groups: dict[tuple[int, int], list[int]] = {}
        for index, spec in enumerate(self.config.layers):
            heads = (spec.attention.kv_heads, spec.attention.head_dim)
            groups.setdefault(heads, []).append(index)
        return tuple(GroupShape(tuple(layers), *heads) for heads, layers in groups.items())

    def forward(self, pool: KVPool, appended: Appended, tokens: Array) -> tuple[KVPool, Array]:
        """Runs new tokens through all layers.

        Args:
          pool: the block pool; carried or donated, updated in place.
          appended: where the tokens go, from `cache.append`.
          tokens: i32[lanes, tokens].

        Returns:
          The pool with the new keys and values, and the hidden states after the final norm,
          [lanes, tokens, hidden], in the compute dtype.
        """
        layers, weights = self.config.layers, self.params["layers"]
        final_norm = Norm(self.params["final_norm"], self.config.norm_eps)
        steps = self._steps(pool, appended, tokens.shape[1])
        arrays = [group.arrays for group in pool.groups]

        x = self.params["embed"][tokens.reshape(-1)].astype(self.dtype)
        after = followings(layers, weights, final_norm, self._unembedding, x.shape[0], self.policy)
        x = Stream.start(x, Norm(weights[0]["input_norm"], layers[0].norm_eps), self.policy)
        for index, spec in enumerate(layers):
            group, place = pool.group_of(index)
            cache = LayerCache(arrays[group], jnp.int32(place))
            x, cache = _layer(
                spec, self.policy, weights[index], after[index], x, cache, steps[index]
            )
            arrays[group] = cache.arrays

        groups = zip(pool.groups, arrays, strict=True)
        pool = pool.replace(groups=tuple(group.replace(arrays=new) for group, new in groups))
        return pool, x.norm(final_norm).array().reshape(*tokens.shape, -1)

    def unembed(self, hidden: Array) -> Array:
        """Logits f32[..., vocab] of hidden states [..., hidden]."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        logits = linear(rows, self._unembedding, out_dtype=jnp.float32, policy=self.policy)
        return logits.reshape(*hidden.shape[:-1], -1)

    @property
    def _unembedding(self) -> Weight:
        """[vocab, hidden]; the embedding itself when tied."""
        if "lm_head" not in self.params:
            return Dense(self.params["embed"])
        lm_head: Weight = self.params["lm_head"]
        return lm_head

    def plan(
        self, pool: KVPool, table: Array, length: Array, previous: tuple[Plan, ...] | None = None
    ) -> tuple[Plan, ...] | None:
        """How a decode step reads the lanes' tables, one plan for all layers that read alike.

        Args:
          pool: the block pool; only its shape and dtype count.
          table: i32[lanes, max_blocks], the lanes' rows.
          length: i32[lanes], tokens that each holds, the new one included; 0 for an idle lane.
          previous: plans of as many lanes, which are kept where they still fit.

        Returns:
          The plans in the order of `readings`; None for the XLA implementation, which needs none.
        """
        return make_plans(self.config.layers, pool, table, length, previous, self.policy)

    def _steps(self, pool: KVPool, appended: Appended, tokens: int) -> list[Step]:
        """What each layer is told of the pass; layers of equal attention are told the same."""
        layers = self.config.layers
        position = appended.start[:, None] + jnp.arange(tokens)
        ropes = dict.fromkeys((spec.attention.rope, spec.attention.head_dim) for spec in layers)
        tables = {key: rope_table(*key, position) for key in ropes}
        plans: dict[Reading, Plan] = {}
        if tokens == 1:
            made = appended.plan or self.plan(pool, appended.table, appended.length)
            plans = dict(zip(readings(layers), made or (), strict=False))
        return [
            Step(
                appended._replace(plan=plans.get(Reading.of(spec))),
                tables[spec.attention.rope, spec.attention.head_dim],
            )
            for spec in layers
        ]
