"""What a search found, read on the host and judged by the exact rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import NO_NODE, ROOT, SearchResult, SearchTree, path_tokens
from dendrite_jax.search.export import Decode
from dendrite_jax.tasks.game24.game import vocabulary as vocab
from dendrite_jax.tasks.game24.game.rules import (
    State,
    apply_step,
    as_state,
    build_expression,
    judge,
)


@dataclass(frozen=True)
class Answer:
    """One path that a search ended on.

    Attributes:
      lines: the steps as the model wrote them, without verdicts.
      value: the scorer's value of the last step.
      expression: what legal steps to one number amount to, else None.
      solved: the steps are legal and end on the target, in exact fractions.
    """

    lines: tuple[str, ...]
    value: float
    expression: str | None
    solved: bool


@dataclass(frozen=True)
class Solution:
    """What a search made of one puzzle.

    Attributes:
      puzzle: the numbers, ascending.
      target: the number to make.
      answers: the best first, as many as the search keeps or fewer.
      nodes: steps sampled in all.
      legal_nodes: those of them that are legal after legal steps.
    """

    puzzle: tuple[int, ...]
    target: int
    answers: tuple[Answer, ...]
    nodes: int
    legal_nodes: int

    @property
    def solved(self) -> bool:
        """Whether the best answer is right (top-1)."""
        return bool(self.answers) and self.answers[0].solved

    @property
    def any_solved(self) -> bool:
        """Whether one of the answers is right (any-of-b, as Yao et al. 2023 count)."""
        return any(answer.solved for answer in self.answers)


@dataclass(frozen=True)
class Results:
    """What a search made of all its puzzles, and what it cost.

    Attributes:
      solutions: one a puzzle, in order.
      ledger: the engine's counters (`cache.Ledger`) of the whole search, the prompts left out.
    """

    solutions: tuple[Solution, ...]
    ledger: dict[str, int]

    @property
    def success_rate(self) -> float:
        """Share of puzzles whose best answer is right."""
        return float(np.mean([solution.solved for solution in self.solutions]))

    @property
    def any_success_rate(self) -> float:
        """Share of puzzles with a right answer among those kept."""
        return float(np.mean([solution.any_solved for solution in self.solutions]))

    @property
    def legality(self) -> float:
        """Share of the sampled steps that are legal after legal steps."""
        nodes = sum(solution.nodes for solution in self.solutions)
        return sum(solution.legal_nodes for solution in self.solutions) / max(nodes, 1)


class Snapshot(NamedTuple):
    """A search as it stands, on the host."""

    puzzles: tuple[tuple[int, ...], ...]  # ascending numbers
    target: int
    result: SearchResult  # of numpy arrays

    @property
    def title(self) -> str:
        """What the first puzzle asks for."""
        return f"Make {self.target} from {' '.join(map(str, self.puzzles[0]))}"


def judge_snapshot(snapshot: Snapshot, decode: Decode) -> Results:
    """Reads and judges a search; `decode` gives the text of token ids."""
    indices = range(len(snapshot.puzzles))
    solutions = (_judge_problem(snapshot, problem, decode) for problem in indices)
    return Results(tuple(solutions), snapshot.result.ledger.totals())


def _judge_problem(snapshot: Snapshot, problem: int, decode: Decode) -> Solution:
    puzzle, found = snapshot.puzzles[problem], snapshot.result
    tree = found.tree
    answers = [
        _read_answer(puzzle, snapshot.target, path_tokens(tree, problem, node), value, decode)
        for node, value in zip(
            found.answers[problem].tolist(), found.values[problem].tolist(), strict=True
        )
        if node != NO_NODE
    ]
    nodes, legal_nodes = _count_lines(as_state(puzzle), tree, problem, decode)
    return Solution(puzzle, snapshot.target, tuple(answers), nodes, legal_nodes)


def _read_answer(
    puzzle: tuple[int, ...], target: int, path: list[list[int]], value: float, decode: Decode
) -> Answer:
    lines = tuple(decode(tokens) for tokens in _split_lines(path))
    try:
        expression = build_expression(puzzle, lines)
    except ValueError:  # an illegal step, or numbers left over
        expression = None
    return Answer(lines, value, expression, judge(puzzle, target, lines))


def _split_lines(path: list[list[int]]) -> list[list[int]]:
    """The tokens of each step without its verdict, whether a thought is a step or one token."""
    lines: list[list[int]] = [[]]
    for token in (token for thought in path for token in thought):
        if lines[-1] or token not in _BETWEEN:
            lines[-1].append(token)
        if token == vocab.LEFT_CLOSE:
            lines.append([])
    return [line for line in lines if line]


_BETWEEN = {vocab.SURE, vocab.IMPOSSIBLE, vocab.NEWLINE, vocab.EOS}
"""Tokens that stand between two steps or after the last one."""


class _Place(NamedTuple):
    """Where a node of the tree stands."""

    state: State | None  # after the last whole step; None once a step was not legal
    line: tuple[int, ...]  # tokens of the step that is not whole yet


def _count_lines(puzzle: State, tree: SearchTree, problem: int, decode: Decode) -> tuple[int, int]:
    """How many steps one problem's nodes are or end, and how many of them are legal.

    A step is legal after legal ones only. In a tree of thoughts every node is a step; in a tree of
    tokens the ends of lines are.
    """
    places = {ROOT: _Place(puzzle, ())}
    known: dict[tuple[State | None, tuple[int, ...]], State | None] = {}  # steps come many times
    by_thought = tree.tokens.shape[2] > 1
    parents = np.asarray(tree.parent[problem])
    lines = legal = 0
    for node in np.flatnonzero(parents != NO_NODE).tolist():
        before, row = places[int(parents[node])], np.asarray(tree.tokens[problem, node])
        own = tuple(token for token in row[row != NO_TOKEN].tolist())
        line = before.line + own if before.line or own[:1] not in _ALONE else ()
        if not by_thought and own != (vocab.LEFT_CLOSE,):
            places[node] = _Place(before.state, line)
            continue
        key = before.state, line
        if key not in known:
            known[key] = None if before.state is None else apply_step(before.state, decode(line))
        places[node] = _Place(known[key], ())
        lines += 1
        legal += known[key] is not None
    return lines, legal


_ALONE = {(token,) for token in _BETWEEN}
