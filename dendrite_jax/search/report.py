"""Reading a search on the host."""

from __future__ import annotations

import numpy as np

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search.outcome import (
    BAD_LOGITS,
    BAD_PROMPT,
    COMPLETE,
    EMPTY_PROMPT,
    HOPELESS,
    MERGED,
    NO_ROOM,
    NO_ROOT,
    NO_STOP,
    NOT_A_NUMBER,
    OFF_GRAMMAR,
    REJECTED,
    STALE_ROOT,
    UNSCORED,
    UNUSED,
)
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree

_ROOT_REASONS = {
    EMPTY_PROMPT: "the root is empty: its prompt has no token",
    NO_ROOT: "there is no root: its id names no branch",
    STALE_ROOT: "the root was cut and does not know what follows: engine.rewind tells it",
    BAD_PROMPT: "the prompt has a token outside the vocabulary or logits that are no numbers",
    NO_ROOM: "no room: the prompt or the first branch found no block, slot or place in context",
}


def path_tokens(tree: SearchTree, problem: int, node: int) -> list[list[int]]:
    """Token ids of each thought from the root down to a node; reads the device.

    Raises:
      ValueError: there is no such node, as for an answer that is NO_NODE.
    """
    parent = np.asarray(tree.parent[problem])
    tokens = np.asarray(tree.tokens[problem])
    if node != ROOT and (not 0 <= node < parent.size or parent[node] == NO_NODE):
        raise ValueError(f"node is {node}; problem {problem} has no such node")
    thoughts: list[list[int]] = []
    while node != ROOT:
        thoughts.append(tokens[node][tokens[node] != NO_TOKEN].tolist())
        node = int(parent[node])
    return thoughts[::-1]


def explain(result: SearchResult, problem: int = 0) -> str:
    """Why a problem has no answer, or fewer than it has places for: one sentence; reads the device.

    Empty where there is an answer in every place.
    """
    answers = np.asarray(result.answers[problem])
    if np.all(answers != NO_NODE):
        return ""
    outcome = np.asarray(result.tree.outcome[problem])
    if outcome[ROOT] in _ROOT_REASONS:
        return _ROOT_REASONS[int(outcome[ROOT])]
    cut, short = bool(result.cut[problem]), bool(result.at_capacity[problem])
    found = int(np.sum(answers != NO_NODE))
    reasons = _reasons(outcome, np.asarray(result.tree.tokens[problem]))
    nodes = int(np.sum(outcome != UNUSED)) - 1
    complete = int(np.sum(outcome == COMPLETE)) - 1
    if cut:
        begin = "the search was cut before its end"
    elif nodes == 0:
        begin = "no room: no branch could be made" if short else "nothing was grown"
    elif found:
        begin = f"{found} of {answers.size} answers were found"
    elif complete == 0:
        begin = f"no candidate among {nodes} thoughts"
    else:
        begin = f"no path ended in an answer, with {complete} candidates among {nodes} thoughts"
    if short and nodes:
        reasons.append("room ran out")
    return f"{begin}: {', '.join(reasons)}" if reasons else begin


def _reasons(outcome: np.ndarray, tokens: np.ndarray) -> list[str]:
    """How many thoughts are no candidates, by the reason why."""
    texts = {
        NO_STOP: f"at max_tokens={tokens.shape[1]} without a stop",
        NO_ROOM: "out of blocks or context",
        OFF_GRAMMAR: "off their grammar",
        BAD_LOGITS: "with logits that are NaN or infinite",
        REJECTED: "rejected by the scorer",
        NOT_A_NUMBER: "with NaN or infinity from the scorer",
        UNSCORED: "without room in the scorer's own cache",
        MERGED: "equal to another",
        HOPELESS: "below the threshold",
    }
    counts = {code: int(np.sum(outcome[1:] == code)) for code in texts}
    return [f"{counts[code]} {text}" for code, text in texts.items() if counts[code]]
