"""How sure a success rate is."""

from __future__ import annotations

import math

import numpy as np

Z = 1.96
"""Standard errors of a 95% interval."""


def interval(solved: np.ndarray) -> tuple[float, float]:
    """A 95% interval of the rate at which puzzles are solved.

    Wilson's interval (1927) for the effective number of trials: runs of one puzzle under several
    seeds are alike, so that they count for less than as many puzzles would (Kish's design effect),
    but for no less than the puzzles alone.

    Args:
      solved: bool[seeds, puzzles].

    Returns:
      The lower and the upper end.
    """
    seeds, puzzles = solved.shape
    rate = float(np.mean(solved))
    by_puzzle = np.mean(solved, axis=0)
    variance = float(np.var(by_puzzle, ddof=1)) / puzzles if puzzles > 1 else 0.0
    trials = rate * (1 - rate) / variance if variance > 0 else puzzles
    trials = min(max(trials, puzzles), seeds * puzzles)
    spread = Z * math.sqrt(rate * (1 - rate) / trials + Z * Z / (4 * trials * trials))
    middle = rate + Z * Z / (2 * trials)
    scale = 1 + Z * Z / trials
    return max((middle - spread) / scale, 0.0), min((middle + spread) / scale, 1.0)
