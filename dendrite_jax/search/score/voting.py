"""Votes among the answers of a search: those with one merge key are one answer."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.tree import NO_NODE

Vote = Literal["majority", "weighted", "max"]
"""What answers with one merge key are worth together. "majority": how many they are (Wang et al.
2023). "weighted": the sum of exp(value), as a share of all the problem's answers (Li et al. 2023);
values are log-probabilities then, as those of the shipped scorers. "max": the best of their values.
"""


def check_vote(how: str) -> None:
    """Raises ValueError for what is not a Vote."""
    if how not in get_args(Vote):
        raise ValueError(f"vote is {how!r}; it must be one of {', '.join(get_args(Vote))}")


def vote(result: SearchResult, how: Vote) -> SearchResult:
    """Ranks the different answers of a search by a vote; works on any search's result.

    Returns:
      The result with the best-valued node of each answer only, and in `values` what its vote came
      to. Ties go to the better value, then to what stood first.
    """
    check_vote(how)
    problem = jnp.arange(result.answers.shape[0])[:, None]
    voter = result.answers >= 0
    key = result.tree.merge_key[problem, jnp.maximum(result.answers, 0)]
    alike = (key[:, :, None] == key[:, None, :]) & voter[:, :, None] & voter[:, None, :]
    if how == "max":
        total = result.values
    elif how == "majority":
        total = jnp.sum(alike, axis=2).astype(jnp.float32)
    else:
        weight = jax.nn.softmax(result.values, axis=1, where=voter)
        total = jnp.sum(jnp.where(alike, weight[:, None, :], 0.0), axis=2)
    # Answers stand best value first, so that the first of its key stands for it.
    repeats = jnp.any(jnp.tril(alike, k=-1), axis=2)
    total = jnp.where(voter & ~repeats, total, -jnp.inf)
    order = jnp.argsort(-total, axis=1, stable=True)
    values = jnp.take_along_axis(total, order, axis=1)
    chosen = ~jnp.isneginf(values)
    return result.replace(
        answers=jnp.where(chosen, result.answers[problem, order], NO_NODE),
        values=values,
        tokens=jnp.where(chosen[..., None], result.tokens[problem, order], NO_TOKEN),
        length=jnp.where(chosen, result.length[problem, order], 0),
    )
