"""The search on the engine compiled once, and a replay of it in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from dendrite_jax.search import mcts as search
from dendrite_jax.search.monte_carlo import MctsConfig
from engine.generation_oracle import Stops, grow
from engine.sampling_oracle import Knobs
from search.judge import MODULUS, Judge, verdict
from search.levels.thought_oracle import child_key
from search.monte_carlo.oracle import Child, Doubt, Node, Search

mcts = jax.jit(search, static_argnames=("config", "prior", "worth"), donate_argnums=1)


def share(value: jax.Array) -> jax.Array:
    """A judge's value as a number in [0, 1)."""
    return value / MODULUS


@dataclass
class Thought:
    """What the replay knows of a node beside its statistics."""

    path: list[int]  # all tokens of its branch, without those committed to it
    key: np.ndarray
    depth: int
    tokens: list[int]
    raw_logprob: float = 0.0
    logprob: float = 0.0
    value: float = -np.inf  # the judge's
    ends: bool = False


def replay(
    prompt: Sequence[int],
    key: np.ndarray,
    config: MctsConfig,
    max_tokens: int,
    knobs: Knobs,
    stops: Stops,
    judge: Judge,
    commit: Sequence[int] = (),
    any_end: bool = False,
) -> Search:
    """The search of one problem with even priors, its thoughts as payloads; Doubt when unsure."""

    def expand(node: Node) -> tuple[Sequence[Child], bool]:
        parent: Thought = node.payload
        context = parent.path + list(commit if parent.depth else ())
        inner = config.inner_children or config.num_children
        count = inner if parent.depth else config.num_children
        thoughts = [
            think(context, child_key(parent.key, number), parent.depth + 1)
            for number in range(count)
        ]
        first: dict[int, Thought] = {}
        ranked = sorted(thoughts, key=lambda thought: -thought.value)
        for thought in ranked:
            merge_key = verdict(judge, thought.path, thought.tokens).merge_key
            first.setdefault(merge_key, thought)
        distinct = {id(thought) for thought in first.values() if thought.value > -np.inf}
        children = [
            Child(
                0.0 if kept else -np.inf,
                thought.value / MODULUS if kept else 0.0,
                thought.ends,
                thought,
            )
            for thought in thoughts
            for kept in [id(thought) in distinct]
        ]
        nothing = Child(-np.inf, 0.0, False, Thought([], parent.key, 0, []))
        return children + [nothing] * (config.num_children - count), False

    def think(context: list[int], branch_key: np.ndarray, depth: int) -> Thought:
        grown = grow(context, branch_key, max_tokens, knobs, stops)
        if grown is None:
            raise Doubt
        path = context + grown.tokens
        judged = verdict(judge, path, grown.tokens)
        return Thought(
            path,
            branch_key,
            depth,
            grown.tokens,
            sum(grown.raw_logprobs),
            sum(grown.logprobs),
            -np.inf if grown.finish == "length" and not any_end else judged.value,
            judged.answer or depth == config.max_depth,
        )

    return Search.of(config, expand, Thought(list(prompt), key, 0, []))
