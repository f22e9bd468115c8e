"""Values read off a model's hidden state at the end of a thought, without generating a token.

A readout is a scorer by the policy's own hidden state, and reads that of a `RewardModel` as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.engine import Model, State
from dendrite_jax.search.piece import Piece
from dendrite_jax.search.score.scored import Scored, Scorer, revalue
from dendrite_jax.search.thoughts import Thoughts

SURE_LIKELY_IMPOSSIBLE = (20.0, 1.0, 0.001)
"""What the three verdicts are worth in tree of thoughts (Yao et al. 2023)."""


class Readout(Protocol):
    """A pure function of the hidden state after a token."""

    def read(self, model: Model, hidden: Array) -> Array:
        """Values f32[lanes] of hidden states [lanes, hidden] of the model."""
        ...


class ValueTokens(Piece):
    """Self-evaluation by the verdict that the model would write next (Yao et al. 2023).

    The value is log Σ weight · P(verdict), where P is among the verdicts only. Tree of thoughts
    samples verdicts and adds up their weights; this is the logarithm of what it gets on average.
    """

    tokens: Array  # i32[verdicts], such as the ids of " sure", " likely", " impossible"
    weights: Array  # f32[verdicts], ≥ 0, such as SURE_LIKELY_IMPOSSIBLE
    scorer: Scorer | None = None  # whose merge keys, answers and rejections hold; see `revalue`

    @classmethod
    def of(cls, tokens: Sequence[int], weights: Sequence[float]) -> ValueTokens:
        """Checked verdicts.

        Raises:
          ValueError: none, not as many weights, or a weight below 0 or not finite.
        """
        if not tokens or len(tokens) != len(weights):
            raise ValueError(f"weights are {len(weights)} for {len(tokens)} tokens; give one each")
        if not all(0 <= weight < float("inf") for weight in weights):
            raise ValueError(f"weights are {list(weights)}; each must be 0 or more, and finite")
        return cls(jnp.asarray(tokens, jnp.int32), jnp.asarray(weights, jnp.float32))

    def __call__(self, model: Model, state: State, thoughts: Thoughts) -> Scored:
        hidden = state.hidden[jnp.maximum(thoughts.branch, 0)]
        return revalue(self.scorer, self.read(model, hidden), model, state, thoughts)

    def read(self, model: Model, hidden: Array) -> Array:
        verdicts = jax.nn.log_softmax(model.unembed(hidden)[:, self.tokens])
        return jax.nn.logsumexp(verdicts, axis=1, b=self.weights)


class ValueHead(Piece):
    """A value head: a linear layer, or one after hidden layers, on the hidden state."""

    weights: tuple[Array, ...]  # [out, in] each, as in Hugging Face; the last out is 1
    biases: tuple[Array, ...]  # [out] each
    activation: Callable[[Array], Array] = jax.nn.relu
    """Between two layers."""
    output: Callable[[Array], Array] = jax.nn.sigmoid
    """After the last one; a sigmoid makes a probability of a logit."""
    scorer: Scorer | None = None  # whose merge keys, answers and rejections hold; see `revalue`

    def __call__(self, model: Model, state: State, thoughts: Thoughts) -> Scored:
        hidden = state.hidden[jnp.maximum(thoughts.branch, 0)]
        return revalue(self.scorer, self.read(model, hidden), model, state, thoughts)

    def read(self, model: Model, hidden: Array) -> Array:
        value = hidden.astype(jnp.float32)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            value = self.activation(value) if layer else value
            value = value @ weight.T + bias
        return self.output(value[:, 0])
