"""Any search over free text, from a branch of an `Engine`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from dendrite_jax import cache as kv
from dendrite_jax.engine import PLAIN, Sampling, State, StopRules
from dendrite_jax.search import (
    AnswerTokens,
    SampleThoughts,
    Scorer,
    SearchResult,
    mean_loglikelihood,
)
from dendrite_jax.search.registry import Search, Task, build
from dendrite_jax.serving.engine import Engine
from dendrite_jax.serving.search_host import check_time_limit, compile_search, search_on_host
from dendrite_jax.serving.validation import check_sampling, check_seed


class ThoughtShape(NamedTuple):
    """How long thoughts and paths are."""

    max_tokens: int
    """Of a thought; a thought also ends on a stop string or on the end of the text."""
    depth: int
    """Thoughts on a path."""
    hopeless: float = -math.inf
    """A thought with a lower score is a dead end to a search that backtracks."""


def text_search(
    name: str,
    stop: StopRules,
    end_tokens: Sequence[int],
    *,
    thoughts: ThoughtShape,
    sizes: Mapping[str, int],
    score: Scorer = mean_loglikelihood,
    sampling: Sampling = PLAIN,
) -> Search:
    """A search over free text.

    Args:
      name: of `registry.SEARCHES` or `registry.ALIASES`.
      stop: what ends a thought.
      end_tokens: a thought that ends on one ends its path; they end the beams of `beam_search`.
      thoughts: their length and number.
      sizes: of the search; see `registry.sizes_of`.
      score: judges thoughts.
      sampling: how they are sampled.

    Raises:
      ValueError: an argument out of its range.
    """
    check_sampling(sampling)
    if thoughts.depth < 1:
        raise ValueError(f"depth is {thoughts.depth}; it must be at least 1")
    expand = SampleThoughts(thoughts.max_tokens, stop, sampling, any_end=True)
    ends = jnp.array(end_tokens, jnp.int32)
    task = Task(
        expand=expand,
        score=AnswerTokens(score, ends),
        depth=thoughts.depth,
        hopeless=thoughts.hopeless,
        stop_tokens=ends,
    )
    return build(name, task, sizes)


def search_from(
    engine: Engine,
    branch: int,
    search: Search,
    seed: int = 0,
    *,
    watch: Callable[[SearchResult], None] | None = None,
    time_limit: float | None = None,
) -> SearchResult:
    """Searches from a held branch; the engine has its state back at the end, whatever happens.

    Args:
      engine: with room for `search.config.num_slots` branches.
      branch: holds the prompt; it stays held.
      search: the search.
      seed: of all sampling.
      watch: as in `search_on_host`.
      time_limit: likewise.

    Returns:
      The result in numpy arrays; `cut` where it was ended early.

    Raises:
      BranchError: the branch is not held.
      ValueError: a bad seed or time limit.
    """
    check_seed(seed)
    check_time_limit(time_limit)
    if not (0 <= branch < engine.config.num_slots and engine.state.cache.alive[branch]):
        raise kv.BranchError(f"branch {branch} is not held")
    roots, key = jnp.array([branch], jnp.int32), jax.random.key(seed)

    def give_back(state: State) -> None:
        engine.state = state

    compile_search(search, engine.model, engine.state, roots, key)
    _, result = search_on_host(
        search,
        engine.model,
        engine.state,
        roots,
        key,
        watch=watch,
        time_limit=time_limit,
        give_back=give_back,
    )
    return result
