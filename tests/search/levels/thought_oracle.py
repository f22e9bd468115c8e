"""Breadth-first tree of thoughts in plain Python, replaying the engine's random draws."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dendrite_jax.search import TreeOfThoughtsConfig
from engine.generation_oracle import Stops
from engine.sampling_oracle import Knobs
from search.judge import Judge
from search.levels import levels_oracle
from search.levels.levels_oracle import Found, Node, Plan, Sampler, child_key, evenly, rank

__all__ = ["Found", "Node", "best", "child_key", "search", "select"]


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
    sampler = Sampler(max_tokens, knobs, stops, judge, commit, config.depth)
    plan = Plan(
        share=evenly(config.proposals),
        keep=lambda row: list(best(select(row, False)[1], config.breadth)),
        record=lambda found, row: best(found.answers + select(row, False)[0], config.breadth),
    )
    return levels_oracle.search(prompt, key, sampler, plan)


def select(row: Sequence[Node | None], last: bool) -> tuple[list[Node], list[Node]]:
    """Answers, and thoughts to go on with: accepted ones, the best of each merge key only."""
    nodes = [node for node in row if node]
    distinct: dict[int, Node] = {}
    for node in rank(nodes):
        distinct.setdefault(node.verdict.merge_key, node)
    kept = [node for node in nodes if node in distinct.values()]
    ends = [node for node in kept if last or node.verdict.answer]
    return ends, [node for node in kept if node not in ends]


def best(nodes: Sequence[Node], count: int) -> list[Node]:
    """The accepted nodes of highest value, of equals the earlier."""
    return rank(nodes)[:count]
