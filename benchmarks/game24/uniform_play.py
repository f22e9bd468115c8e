"""The control without a model: Game of 24 by uniformly random legal moves, computed exactly."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from dendrite_jax.tasks.game24.game.rules import State, as_state, legal_moves


@cache
def success_of_one_play(state: State, target: int) -> float:
    """The probability that uniformly random legal moves from a state end on the target."""
    if len(state) == 1:
        return float(state[0] == target)
    moves = legal_moves(state)
    return sum(success_of_one_play(move.state, target) for move in moves) / max(len(moves), 1)


def success_of_plays(puzzles: Sequence[tuple[int, ...]], target: int, plays: float) -> float:
    """The share of puzzles that so many plays each are expected to solve, checking every one."""
    once = np.array([success_of_one_play(as_state(puzzle), target) for puzzle in puzzles])
    return float(np.mean(1 - (1 - once) ** plays))
