"""Any search from a branch of an `Engine`, step by step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dendrite_jax import cache as kv
from dendrite_jax.engine import PLAIN, Sampling, StopRules
from dendrite_jax.engine import free as free_branches
from dendrite_jax.search import AnswerTokens, SampleThoughts, Scorer, mean_loglikelihood
from dendrite_jax.search.methods import Method, Pieces, View, build
from dendrite_jax.serving.compilation import loop_options
from dendrite_jax.serving.engine import Engine
from dendrite_jax.serving.validation import check_sampling, check_seed


class ThoughtShape(NamedTuple):
    """How long thoughts and paths are."""

    max_tokens: int
    """Of a thought; a thought also ends on a stop string or on the end of the text."""
    depth: int
    """Thoughts on a path."""


def text_method(
    name: str,
    stop: StopRules,
    end_tokens: Sequence[int],
    *,
    thoughts: ThoughtShape,
    sizes: Mapping[str, int],
    score: Scorer = mean_loglikelihood,
    sampling: Sampling = PLAIN,
) -> Method:
    """A search over free text.

    Args:
      name: of `search.METHODS`.
      stop: what ends a thought.
      end_tokens: a thought that ends on one ends its path.
      thoughts: their length and number.
      sizes: of the search; see `methods.sizes_of`.
      score: judges thoughts.
      sampling: how they are sampled.

    Raises:
      ValueError: an argument out of its range.
    """
    check_sampling(sampling)
    if thoughts.depth < 1:
        raise ValueError(f"depth is {thoughts.depth}; it must be at least 1")
    expand = SampleThoughts(thoughts.max_tokens, stop, sampling, any_end=True)
    ended = AnswerTokens(score, jnp.array(end_tokens, jnp.int32))
    return build(name, Pieces(expand, ended, thoughts.depth), sizes)


def search_from(engine: Engine, branch: int, method: Method, seed: int = 0) -> Iterator[View]:
    """Searches from a held branch, yielding what there is (numpy arrays) after each step.

    The engine is given its state back when the search ends, also when it is left early.

    Args:
      engine: with room for `method.config.num_slots` branches.
      branch: holds the prompt; it stays held.
      method: the search.
      seed: of all sampling.

    Raises:
      BranchError: the branch is not held.
      ValueError: a bad seed.
    """
    check_seed(seed)
    if not (0 <= branch < engine.config.num_slots and engine.state.cache.alive[branch]):
        raise kv.BranchError(f"branch {branch} is not held")
    return _search(engine, branch, method, seed)


def _search(engine: Engine, branch: int, method: Method, seed: int) -> Iterator[View]:
    steps = method.steps
    start = jax.jit(steps.start, donate_argnums=0)
    advance = jax.jit(steps.advance, donate_argnums=1, compiler_options=loop_options())
    look = jax.jit(lambda loop: (steps.view(loop), steps.unfinished(loop)))
    free = jax.jit(free_branches, donate_argnums=0)
    loop = start(engine.state, np.array([branch], np.int32), jax.random.key(seed))
    try:
        unfinished = True
        while unfinished:
            loop = advance(engine.model, loop)
            view, unfinished = jax.device_get(look(loop))
            yield view
    finally:
        engine.state = free(*steps.close(loop))
