"""Breadth-first tree of thoughts in plain Python, replaying the engine's random draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import jax
import numpy as np

from dendrite_jax.search import TreeOfThoughtsConfig
from engine.generation_oracle import Stops, grow
from engine.sampling_oracle import Knobs
from search.judge import Judge, Verdict, verdict


@dataclass(frozen=True)
class Node:
    """A sampled thought."""

    number: int  # its row of the recorded tree
    parent: int
    depth: int
    tokens: list[int]
    raw_logprob: float
    logprob: float
    verdict: Verdict  # rejected where the thought met no stop rule
    path: list[int]  # all tokens of its branch
    key: np.ndarray


@dataclass
class Found:
    """A finished search."""

    nodes: list[Node] = field(default_factory=list)
    answers: list[Node] = field(default_factory=list)


def search(
    prompt: Sequence[int],
    key: np.ndarray,
    config: TreeOfThoughtsConfig,
    max_tokens: int,
    knobs: Knobs,
    stops: Stops,
    judge: Judge,
    commit: Sequence[int] = (),
) -> Found | None:
    """Searches one problem; None where float32 could draw another token."""
    found = Found()
    trunk = child_key(key, 0)
    frontier = [Node(0, -1, 0, [], 0.0, 0.0, Verdict(0.0, 0, False), list(prompt), trunk)]
    for level in range(config.depth):
        level_nodes = []
        for lane in range(config.proposals if frontier else 0):
            parent = frontier[lane % len(frontier)]
            context = parent.path + list(commit if level else ())
            branch = child_key(parent.key, lane // len(frontier))
            grown = grow(context, branch, max_tokens, knobs, stops)
            if grown is None:
                return None
            path = context + grown.tokens
            judged = verdict(judge, path, grown.tokens)
            if grown.finish == "length":
                judged = judged._replace(value=-math.inf)
            level_nodes.append(
                Node(
                    1 + level * config.proposals + lane,
                    parent.number,
                    level + 1,
                    grown.tokens,
                    sum(grown.raw_logprobs),
                    sum(grown.logprobs),
                    judged,
                    path,
                    branch,
                )
            )
        found.nodes += level_nodes
        last = level + 1 == config.depth
        ends, goes_on = select(level_nodes, last)
        found.answers = best(found.answers + ends, config.breadth)
        frontier = best(goes_on, config.breadth)
    return found


def select(nodes: Sequence[Node], last: bool) -> tuple[list[Node], list[Node]]:
    """Answers, and thoughts to go on with: accepted ones, the best of each merge key only."""
    distinct: dict[int, Node] = {}
    for node in best(nodes, len(nodes)):
        distinct.setdefault(node.verdict.merge_key, node)
    kept = [node for node in nodes if node in distinct.values()]
    ends = [node for node in kept if last or node.verdict.answer]
    return ends, [node for node in kept if node not in ends]


def best(nodes: Sequence[Node], count: int) -> list[Node]:
    """The accepted nodes of highest value, of equals the earlier."""
    accepted = [node for node in nodes if node.verdict.value > -math.inf]
    return sorted(accepted, key=lambda node: -node.verdict.value)[:count]


@jax.jit
def _child_key(key: jax.Array, number: jax.Array) -> jax.Array:
    folded = jax.random.fold_in(jax.random.wrap_key_data(key), number)
    return jax.random.key_data(folded)


def child_key(key: np.ndarray, number: int) -> np.ndarray:
    """Key words of a branch's child; `number` counts its children from 0."""
    return np.asarray(_child_key(key, np.uint32(2**31 + number)))
