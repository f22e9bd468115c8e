"""The decoder: one definition for Llama, Mistral, Qwen2 and Qwen3 shapes, over the paged cache."""

from __future__ import annotations

from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax.cache import Appended, KVPool, KVShape, uniform_shape
from dendrite_jax.kernels.paged_prefill import paged_prefill
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy
from dendrite_jax.kernels.rope_append import rope_append
from dendrite_jax.kernels.skinny_matmul import residual_matmul, rms_norm, skinny_matmul
from dendrite_jax.kernels.tree_attention import Plan, make_plan, tree_attention
from dendrite_jax.models.config import ModelConfig
from dendrite_jax.models.rope import rope_tables

Params = dict[str, Any]
"""Weights by name; matrices are [out, in] as in Hugging Face files.

embed [vocab, hidden], final_norm [hidden], lm_head [vocab, hidden] (absent when tied), and layers,
a tuple of dicts: input_norm [hidden], qkv [(heads + 2 kv_heads) head_dim, hidden] with an optional
qkv_bias, optional q_norm and k_norm [head_dim], o [hidden, heads head_dim] with an optional o_bias,
post_norm [hidden], gate_up [2 intermediate, hidden] and down [hidden, intermediate] with optional
gate_up_bias and down_bias.
"""


_Attention = Callable[[int, Array, Array, Array], Array]
"""(layer, q, k_pool, v_pool) -> attended values of all heads."""


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
        return self.params["embed"].dtype

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def kv_shape(self) -> KVShape:
        """The keys and values of all layers, which are alike."""
        config = self.config
        return uniform_shape(
            num_layers=config.num_layers,
            num_kv_heads=config.num_kv_heads,
            head_dim=config.head_dim,
        )

    def forward(self, pool: KVPool, appended: Appended, tokens: Array) -> tuple[KVPool, Array]:
        """Runs new tokens through all layers.

        Args:
          pool: the block pool; carried or donated, updated in place.
          appended: where the tokens go, from `cache.append`.
          tokens: i32[lanes, tokens].

        Returns:
          The pool with the new keys and values, and the hidden states after the final norm,
          [lanes, tokens, hidden], in the weights' dtype.
        """
        config = self.config
        position = appended.start[:, None] + jnp.arange(tokens.shape[1])
        rope = rope_tables(config, position)
        attend = self._decode_attention if tokens.shape[1] == 1 else self._prefill_attention
        attention = attend(pool, appended)
        x, normed = self.params["embed"][tokens.reshape(-1)], None
        groups = [group.arrays for group in pool.groups]
        layers = self.params["layers"]
        for index, (layer, following) in enumerate(zip_longest(layers, layers[1:])):
            qkv = self._matmul(
                x,
                layer["qkv"],
                layer.get("qkv_bias"),
                norm=layer["input_norm"],
                normed=normed,
                prefetch=layer["o"],
            )
            group, place = pool.group_of(index)
            q, k_pool, v_pool = rope_append(
                qkv.reshape(*tokens.shape, -1),
                rope,
                groups[group]["k"],
                groups[group]["v"],
                place,
                appended.block,
                appended.offset,
                q_norm=layer.get("q_norm"),
                k_norm=layer.get("k_norm"),
                eps=config.rms_norm_eps,
                policy=self.policy,
            )
            groups[group] = {"k": k_pool, "v": v_pool}
            attended = attention(index, q, k_pool, v_pool)
            x, normed = self._residual_matmul(
                attended.reshape(x.shape[0], -1),
                x,
                layer["o"],
                layer.get("o_bias"),
                next_norm=layer["post_norm"],
                prefetch=layer["gate_up"],
            )
            inner = self._matmul(
                x,
                layer["gate_up"],
                layer.get("gate_up_bias"),
                norm=layer["post_norm"],
                normed=normed,
                swiglu=True,
                prefetch=layer["down"],
            )
            x, normed = self._residual_matmul(
                inner,
                x,
                layer["down"],
                layer.get("down_bias"),
                next_norm=following["input_norm"] if following else self.params["final_norm"],
                prefetch=following["qkv"] if following else self._unembedding,
            )
        if normed is None:
            normed = rms_norm(x, self.params["final_norm"], config.rms_norm_eps)
        pool = pool.replace(
            groups=tuple(
                group.replace(arrays=arrays)
                for group, arrays in zip(pool.groups, groups, strict=True)
            )
        )
        return pool, normed.reshape(*tokens.shape, -1)

    def unembed(self, hidden: Array) -> Array:
        """Logits f32[..., vocab] of hidden states [..., hidden]."""
        rows = hidden.reshape(-1, hidden.shape[-1])
        logits = self._matmul(rows, self._unembedding, out_dtype=jnp.float32)
        return logits.reshape(*hidden.shape[:-1], -1)

    @property
    def _unembedding(self) -> Array:
        """[vocab, hidden]; the embedding itself when tied."""
        return self.params["lm_head" if "lm_head" in self.params else "embed"]

    def _matmul(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        *,
        norm: Array | None = None,
        normed: Array | None = None,
        **options: Any,
    ) -> Array:
        """A linear layer on rows [rows, in], normalised first unless `normed` is that already."""
        if normed is not None:
            x, norm = normed, None
        return skinny_matmul(
            x,
            weight,
            bias=bias,
            norm=norm,
            eps=self.config.rms_norm_eps,
            policy=self.policy,
            **options,
        )

    def _residual_matmul(
        self, x: Array, residual: Array, weight: Array, bias: Array | None, **options: Any
    ) -> tuple[Array, Array | None]:
        """A linear layer on rows [rows, in] plus the residual, and its norm if that was made."""
        return residual_matmul(
            x,
            residual,
            weight,
            bias=bias,
            eps=self.config.rms_norm_eps,
            policy=self.policy,
            **options,
        )

    def plan(
        self, pool: KVPool, table: Array, length: Array, previous: tuple[Plan, ...] | None = None
    ) -> tuple[Plan, ...] | None:
        """How a decode step reads the lanes' tables, one plan for all layers of a window.

        Args:
          pool: the block pool; only its shape and dtype count.
          table: i32[lanes, max_blocks], the lanes' rows.
          length: i32[lanes], tokens that each holds, the new one included; 0 for an idle lane.
          previous: plans of as many lanes, which are kept where they still fit.

        Returns:
          The plans in the order of `_windows`; None for the XLA implementation, which needs none.
        """
        plans = []
        for window, before in zip_longest(self._windows, previous or ()):
            plan = make_plan(
                table,
                length,
                pool.groups[0].arrays["k"],
                self.config.num_heads,
                window=window,
                previous=before,
                policy=self.policy,
            )
            if plan is None:
                return None
            plans.append(plan)
        return tuple(plans)

    @property
    def _windows(self) -> tuple[int | None, ...]:
        """The sliding windows that some layer has, None for a full layer's."""
        return tuple(dict.fromkeys(self.config.windows or (None,)))

    def _decode_attention(self, pool: KVPool, appended: Appended) -> _Attention:
        """Attention of one new token a lane; layers of one window share a plan."""
        config = self.config
        windows = config.windows or (None,) * config.num_layers
        made = appended.plan or self.plan(pool, appended.table, appended.length)
        plans = dict(zip_longest(self._windows, made or ()))

        def attention(index: int, q: Array, k_pool: Array, v_pool: Array) -> Array:
            out, _ = tree_attention(
                q[:, 0],
                k_pool,
                v_pool,
                pool.group_of(index)[1],
                appended.table,
                appended.length,
                plan=plans[windows[index]],
                window=windows[index],
                policy=self.policy,
            )
            return out

        return attention

    def _prefill_attention(self, pool: KVPool, appended: Appended) -> _Attention:
        """Attention of several new tokens a lane over the lane's prefix and each other."""
        windows = self.config.windows or (None,) * self.config.num_layers

        def attention(index: int, q: Array, k_pool: Array, v_pool: Array) -> Array:
            out, _ = paged_prefill(
                q,
                k_pool,
                v_pool,
                pool.group_of(index)[1],
                appended.table,
                appended.start,
                window=windows[index],
                policy=self.policy,
            )
            return out

        return attention
