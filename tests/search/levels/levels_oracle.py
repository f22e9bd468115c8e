"""Searches by levels in plain Python, replaying the engine's random draws."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import jax
import numpy as np

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
    total: float = 0.0  # the path's value
    chosen_by: float = 0.0  # the value that it is ranked by, which may look ahead
    children: int = 0  # that its branch has had


class Unclear(Exception):
    """float32 could decide otherwise."""


Frontier = list[Node | None]


@dataclass
class Found:
    """A finished search."""

    nodes: list[Node] = field(default_factory=list)
    answers: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class Sampler:
    """How thoughts are made and judged."""

    max_tokens: int
    knobs: Knobs
    stops: Stops
    judge: Judge
    commit: Sequence[int] = ()
    depth: int = 1

    def grow(
        self, parent: Node, number: int, child: int, knobs: Knobs | None = None
    ) -> Node | None:
        """Child number `child` of a node; None where float32 could draw another token."""
        key = child_key(parent.key, child)
        grown = grow(parent.path, key, self.max_tokens, knobs or self.knobs, self.stops)
        if grown is None:
            return None
        path = parent.path + grown.tokens
        judged = verdict(self.judge, path, grown.tokens)
        if grown.finish == "length":
            judged = judged._replace(value=-math.inf)
        ends = judged.answer or parent.depth + 1 == self.depth
        return Node(
            number,
            parent.number,
            parent.depth + 1,
            grown.tokens,
            sum(grown.raw_logprobs),
            sum(grown.logprobs),
            judged._replace(answer=ends),
            path,
            key,
        )


def root(prompt: Sequence[int], key: np.ndarray) -> Node:
    """The node of the prompt; `key` is the problem's."""
    trunk = child_key(key, 0)
    return Node(0, -1, 0, [], 0.0, 0.0, Verdict(0.0, 0, False), list(prompt), trunk)


@dataclass(frozen=True)
class Plan:
    """The rules of a search."""

    share: Callable[[Frontier, Found], Frontier]
    """The parent of each proposal of a level."""
    keep: Callable[[list[Node | None]], Frontier]
    record: Callable[[Found, list[Node | None]], list[Node]]
    """The answers after a level; rank them by `rank` at the end."""
    combine: Callable[[float, float], float] = lambda path, step: step
    lookahead: int = 0
    last: Sampler | None = None
    """Of the last level, if it is another."""


def search(prompt: Sequence[int], key: np.ndarray, sampler: Sampler, plan: Plan) -> Found | None:
    """Searches one problem; None where float32 could draw another token."""
    found = Found()
    frontier: Frontier = [root(prompt, key)]
    for level in range(sampler.depth):
        if plan.last and level + 1 == sampler.depth:
            sampler = plan.last
        commit = list(sampler.commit) if level else []
        frontier = [node and replace(node, path=node.path + commit) for node in frontier]
        try:
            parents = plan.share(frontier, found)
        except Unclear:
            return None
        children = {id(node): node.children for node in frontier if node}
        row: list[Node | None] = []
        for lane, parent in enumerate(parents):
            if parent is None:
                row.append(None)
                continue
            child = children[id(parent)]
            children[id(parent)] += 1
            node = sampler.grow(parent, 1 + level * len(parents) + lane, child)
            if node is None:
                return None
            total = plan.combine(parent.total, node.verdict.value) if level else node.verdict.value
            if node.verdict.value == -math.inf:
                total = -math.inf
            node = replace(node, total=total, chosen_by=total)
            if plan.lookahead and not node.verdict.answer and total > -math.inf:
                seen = _look_ahead(node, sampler, plan)
                if seen is None:
                    return None
                node = replace(node, chosen_by=seen, children=1)
            row.append(node)
        found.nodes += [node for node in row if node]
        found.answers = plan.record(found, row)
        frontier = plan.keep(row)
        if not any(frontier):
            break
    found.answers = rank(found.answers)
    return found


def rank(nodes: Sequence[Node]) -> list[Node]:
    """The accepted nodes by value, of equals the earlier first."""
    accepted = [node for node in nodes if node.chosen_by > -math.inf]
    return sorted(accepted, key=lambda node: -node.chosen_by)


def best_of(nodes: Sequence[Node]) -> Node | None:
    return next(iter(rank(nodes)), None)


def growing(row: Sequence[Node | None]) -> list[Node]:
    """The accepted nodes that do not end their path, the best first."""
    return rank([node for node in row if node and not node.verdict.answer])


def ended(found: Found, row: Sequence[Node | None]) -> list[Node]:
    """All accepted nodes so far that end their path."""
    return found.answers + [
        node for node in row if node and node.verdict.answer and node.chosen_by > -math.inf
    ]


def evenly(proposals: int) -> Callable[[Frontier, Found], Frontier]:
    """Each in turn."""
    return lambda frontier, found: [frontier[lane % len(frontier)] for lane in range(proposals)]


def by_subtree(subtrees: int, width: int) -> Callable[[Frontier, Found], Frontier]:
    """`width` each, and all of a root that stands alone."""

    def share(frontier: Frontier, found: Found) -> Frontier:
        trees = frontier if found.nodes else frontier * subtrees
        return [node for node in trees for _ in range(width)]

    return share


def softmax_balanced(width: int, temperature: float) -> Callable[[Frontier, Found], Frontier]:
    """To each, the best step first, its part of what is left, rounded up."""

    def share(frontier: Frontier, found: Found) -> Frontier:
        nodes = sorted([node for node in frontier if node], key=lambda node: -node.verdict.value)
        weights = [math.exp(node.verdict.value / temperature) for node in nodes]
        left, counts = width - len(found.answers), {}
        for rank_, node in enumerate(nodes):
            part = left * weights[rank_] / sum(weights[rank_:])
            alike = len(set(weights[rank_:])) == 1
            if not alike and round(part) >= 1 and abs(part - round(part)) < 1e-4:
                raise Unclear
            counts[node.number] = math.ceil(round(part, 6) if alike else part)
            left -= counts[node.number]
        parents = [node for node in frontier if node for _ in range(counts[node.number])]
        return [*parents, *[None] * (width - len(parents))]

    return share


def best_of_subtrees(width: int) -> Callable[[list[Node | None]], Frontier]:
    """The best proposal of each subtree, unless it ends its path."""

    def keep(row: list[Node | None]) -> Frontier:
        kept = []
        for first in range(0, len(row), width):
            node = best_of([node for node in row[first : first + width] if node])
            kept.append(None if node is None or node.verdict.answer else node)
        return kept

    return keep


def _look_ahead(node: Node, sampler: Sampler, plan: Plan) -> float | None:
    total, here, child = node.total, node, 0
    for _ in range(plan.lookahead):
        here = replace(here, path=[*here.path, *sampler.commit])
        ahead = sampler.grow(here, -1, child, replace(sampler.knobs, temperature=0.0))
        if ahead is None:
            return None
        if ahead.verdict.value == -math.inf:
            break
        total = plan.combine(total, ahead.verdict.value)
        last = len(ahead.tokens) > 1 and ahead.tokens[-2] == int(sampler.judge.answer)
        if last:
            break
        here = ahead
    return total


@jax.jit
def _child_key(key: jax.Array, number: jax.Array) -> jax.Array:
    folded = jax.random.fold_in(jax.random.wrap_key_data(key), number)
    return jax.random.key_data(folded)


def child_key(key: np.ndarray, number: int) -> np.ndarray:
    """Key words of a branch's child; `number` counts its children from 0."""
    return np.asarray(_child_key(key, np.uint32(2**31 + number)))
