"""What a search found, read on the host and judged by the exact rules.

Two orders are kept apart. `Solution.answers` is the model's: what the search ended on, as it ranked
it, right or wrong; success rates count these. `Solution.right` is the checker's: the expressions
that make the target, wherever in the tree they stand; `dendrite solve` shows these. The checker
reads finished nodes only, and nothing that it finds goes back into a search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search import NO_NODE, ROOT, SearchResult, SearchTree, explain, path_tokens
from dendrite_jax.search.export import Decode, Judged
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
    """One path of a tree that ends.

    Attributes:
      node: its last node.
      lines: the steps as the model wrote them, without verdicts.
      value: what it is ranked by: a search's own value of the path, or the node's.
      expression: what legal steps to one number amount to, else None.
      solved: the steps are legal and end on the target, in exact fractions.
    """

    node: int
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
      answers: what the search ended on, the best by the model first, as many as it keeps or fewer.
        Steps that leave the same number are one answer to a search that merges.
      right: the paths of the tree that make the target, one an expression, the best value first.
      reason: why nothing is right, in a sentence; empty otherwise.
      nodes: steps sampled in all.
      legal_nodes: those of them that are legal after legal steps.
    """

    puzzle: tuple[int, ...]
    target: int
    answers: tuple[Answer, ...]
    right: tuple[Answer, ...]
    reason: str
    nodes: int
    legal_nodes: int

    @property
    def judged(self) -> Judged:
        """What is shown as the answers: the right ones alone."""
        return Judged([answer.node for answer in self.right], self.reason)

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
    puzzle, target, found = snapshot.puzzles[problem], snapshot.target, snapshot.result
    tree = found.tree

    def read(node: int, value: float) -> Answer:
        return _read_answer(puzzle, target, tree, problem, node, value, decode)

    answers = tuple(
        read(node, value)
        for node, value in zip(
            found.answers[problem].tolist(), found.values[problem].tolist(), strict=True
        )
        if node != NO_NODE
    )
    lines = _judge_lines(as_state(puzzle), tree, problem, decode)
    values = np.asarray(tree.value[problem])
    # The search's own node stands for an expression that it ended on.
    ends = [answer.node for answer in answers if answer.solved]
    ends += [node for node, state in lines.ends if state == (Fraction(target),)]
    right = _distinct([read(node, float(values[node])) for node in ends])
    reason = ""
    if not right:
        reason = explain(found, problem)
        if answers:
            ended = f"{len(answers)} paths ended, none of them"
            reason = f"{'1 path ended, not' if len(answers) == 1 else ended} on {target}"
    return Solution(puzzle, target, answers, right, reason, lines.steps, lines.legal)


def _distinct(answers: Sequence[Answer]) -> tuple[Answer, ...]:
    """The first of each expression, the best value first."""
    firsts: dict[str | None, Answer] = {}
    for answer in answers:
        firsts.setdefault(answer.expression, answer)
    return tuple(sorted(firsts.values(), key=lambda answer: -answer.value))


def _read_answer(
    puzzle: tuple[int, ...],
    target: int,
    tree: SearchTree,
    problem: int,
    node: int,
    value: float,
    decode: Decode,
) -> Answer:
    path = path_tokens(tree, problem, node)
    lines = tuple(decode(tokens) for tokens in _split_lines(path))
    try:
        expression = build_expression(puzzle, lines)
    except ValueError:  # an illegal step, or numbers left over
        expression = None
    return Answer(node, lines, value, expression, judge(puzzle, target, lines))


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


class _Lines(NamedTuple):
    """The steps that one problem's nodes are or end, judged."""

    steps: int
    legal: int  # of them, after legal steps
    ends: list[tuple[int, State]]  # nodes of legal steps that leave one number, and that number


def _judge_lines(puzzle: State, tree: SearchTree, problem: int, decode: Decode) -> _Lines:
    """Judges every step of a tree by the exact rules.

    A step is legal after legal ones only. In a tree of thoughts every node is a step; in a tree of
    tokens the ends of lines are.
    """
    places = {ROOT: _Place(puzzle, ())}
    known: dict[tuple[State | None, tuple[int, ...]], State | None] = {}  # steps come many times
    by_thought = tree.tokens.shape[2] > 1
    parents = np.asarray(tree.parent[problem])
    steps = legal = 0
    ends: list[tuple[int, State]] = []
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
        state = known[key]
        places[node] = _Place(state, ())
        steps += 1
        if state is not None:
            legal += 1
            if len(state) == 1:
                ends.append((node, state))
    return _Lines(steps, legal, ends)


_ALONE = {(token,) for token in _BETWEEN}
