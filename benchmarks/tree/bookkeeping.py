"""What a round costs beside the model: its books, on a decoder without layers.

The same rounds run with the same tables, slots, lanes and vocabulary, but a step's logits come from
nowhere. What is left is planning, appending, sampling, forking, choosing and freeing. It is an
upper bound: a real step hides the launches of these small kernels behind its large ones.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import Array

from dendrite_jax import engine
from dendrite_jax.benchmarks.harness.timing import compile_all, seconds_per_turn
from dendrite_jax.benchmarks.tree.programs import TreePrograms
from dendrite_jax.benchmarks.tree.sizes import TreeSizes
from dendrite_jax.benchmarks.tree.workloads import Rounds, measure_rounds
from dendrite_jax.cache import Appended, GroupShape, KVPool, KVShape
from dendrite_jax.engine import PLAIN
from dendrite_jax.kernels.dispatch import choose_implementation
from dendrite_jax.kernels.policy import DEFAULT_POLICY, KernelPolicy
from dendrite_jax.kernels.tree_attention import make_plan
from dendrite_jax.kernels.tree_attention.plan import Plan
from dendrite_jax.models import Decoder, ModelConfig


class HollowDecoder(struct.PyTreeNode):
    """A decoder's cache, plan and logits, without what computes them."""

    row: Array  # f32[vocab], logits before each token's own shift
    config: ModelConfig = struct.field(pytree_node=False)
    dtype: Any = struct.field(pytree_node=False)
    plans: bool = struct.field(pytree_node=False, default=True)
    policy: KernelPolicy = struct.field(pytree_node=False, default=DEFAULT_POLICY)

    @classmethod
    def of(cls, model: Decoder) -> HollowDecoder:
        row = jax.random.normal(jax.random.key(0), (model.vocab_size,))
        return cls(row, model.config, model.dtype, policy=model.policy)

    @property
    def vocab_size(self) -> int:
        return self.config.vocab_size

    @property
    def hidden_size(self) -> int:
        return self.config.hidden_size

    @property
    def max_position(self) -> int:
        return self.config.max_position

    @property
    def kv_shape(self) -> KVShape:
        heads = self.config.layers[0].attention
        return (GroupShape((0,), heads.kv_heads, heads.head_dim),)

    def plan(
        self, pool: KVPool, table: Array, length: Array, previous: Plan | None = None
    ) -> Plan | None:
        """The plan of a decoder whose layers all see the same, kept where it still fits."""
        if not self.plans:
            return None
        return make_plan(
            table,
            length,
            pool.groups[0].arrays["k"],
            self.config.layers[0].attention.heads,
            previous=previous,
            policy=self.policy,
        )

    def forward(self, pool: KVPool, appended: Appended, tokens: Array) -> tuple[KVPool, Array]:
        """The pool as it was, and hidden states [lanes, tokens, hidden] that need the plan."""
        hidden = jnp.broadcast_to(tokens[..., None], (*tokens.shape, self.hidden_size))
        if tokens.shape[1] == 1:
            plan = appended.plan or self.plan(pool, appended.table, appended.length)
            hidden, _ = jax.lax.optimization_barrier((hidden, plan))
        return pool, hidden.astype(self.dtype)

    def unembed(self, hidden: Array) -> Array:
        """Logits f32[..., vocab], written out as a product would."""
        return jax.lax.optimization_barrier(self.row + hidden[..., :1].astype(jnp.float32))


def measure(
    model: Decoder, sizes: TreeSizes, rounds: dict[tuple[int, int], Rounds]
) -> list[dict[str, Any]]:
    """The books of a token step of each round, against the whole step.

    Args:
      model: the decoder whose shapes are taken.
      sizes: of the rounds.
      rounds: what the rounds of the whole model took, by keep and width.

    Returns:
      A row for each of the rounds, in microseconds a token: all of the books, of which planning
      (None where attention needs no plan), sampling, and what is outside of the decode loop.
    """
    lanes = tuple(sorted({keep * width for keep, width in rounds}))
    hollow = {True: HollowDecoder.of(model)}
    if choose_implementation(model.policy) == "triton":  # the other needs no plan
        hollow[False] = replace(hollow[True], plans=False)
    with ThreadPoolExecutor() as pool:
        compile_for = partial(TreePrograms.compile, sizes=sizes, lanes=lanes)
        programs = dict(zip(hollow, pool.map(compile_for, hollow.values()), strict=True))
    sampling = _sampling_seconds(model.vocab_size, lanes)
    rows = []
    for (keep, width), whole in rounds.items():
        books = {plans: measure_rounds(programs[plans], keep, width) for plans in programs}
        per_token = {plans: 1e6 * each.median / sizes.thought for plans, each in books.items()}
        rows.append(
            {
                "keep": keep,
                "width": width,
                "books_us": per_token[True],
                "of_step": books[True].median / whole.median,
                "planning_us": per_token[True] - per_token[False] if False in books else None,
                "sampling_us": 1e6 * sampling[keep * width],
                "outside_loop_us": 1e6 * books[True].idle / sizes.thought,
            }
        )
    return rows


def _sampling_seconds(vocab_size: int, lane_counts: tuple[int, ...]) -> dict[int, float]:
    """Seconds of `engine.sample` alone, by lanes."""

    def body(position: Array, logits: Array, key: Array) -> Array:
        # Reads the last token, so that no turn's work can be shared with another's.
        logits = logits + (position[:, None] * 1e-9).astype(jnp.float32)
        return engine.sample(logits, key, position, PLAIN).token

    arguments = {
        lanes: (
            jnp.zeros(lanes, jnp.int32),
            jax.random.normal(jax.random.key(0), (lanes, vocab_size)),
            jax.random.key_data(jax.random.split(jax.random.key(1), lanes)),
        )
        for lanes in lane_counts
    }
    compiled = compile_all({lanes: (body, given) for lanes, given in arguments.items()})
    return {lanes: seconds_per_turn(compiled[lanes], arguments[lanes]) for lanes in lane_counts}
