"""One problem of a finished search as plain JSON values; the schema of `to_json` and `to_html`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array

from dendrite_jax.engine import NO_TOKEN
from dendrite_jax.search.outcome import OUTCOME_NAMES
from dendrite_jax.search.report import explain, path_tokens
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.tree import NO_NODE, ROOT, SearchTree

FORMAT = "dendrite-search"
VERSION = 1

Decode = Callable[[Sequence[int]], str]
"""Token ids to text."""


class Judged(NamedTuple):
    """What a task makes of a search, shown in place of the search's own ranking."""

    answers: Sequence[int]
    """Nodes, the best first; ranked by the scorer's values of the nodes or otherwise."""
    reason: str = ""
    """Why there are none, or fewer than there may be, in a sentence; empty for no reason."""


def document(
    result: SearchResult,
    problem: int = 0,
    *,
    decode: Decode,
    title: str = "",
    judged: Judged | None = None,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, Any]:
    """One problem's tree, answers and cost; reads the device once.

    Numbers that JSON lacks are the strings "Infinity", "-Infinity" and "NaN", which `float` reads.
    A finite number is the shortest decimal that reads back as the same float32.

    Args:
      result: of any search.
      problem: which of the batch.
      decode: gives the text of token ids.
      title: what was searched for, such as the prompt.
      judged: the answers and the reason to give; the search's own when None.
      about: further entries of the object that say how it came about, as JSON values. The page's
        heading shows those named method, sizes (an object), seed and model.

    Returns:
      format, version: `FORMAT` and `VERSION`.
      title: as given.
      nodes: objects by depth, so that parents come first; unused rows of the tree are left out.
        id (the row), parent (null for the root), depth, tokens, text (what the node adds to its
        parent's path), raw_logprob, logprob, value ("-Infinity": rejected or not scored, as a root
        may be), visits, terminal, outcome (a word of `OUTCOME_NAMES`: why it is no candidate).
      answers: objects, best first: node, value, tokens and text of the whole path after the prompt.
      frontier: ids of the nodes that the search would go on from.
      reason: why there are no answers, or fewer than there may be, in a sentence; null otherwise.
      cut: whether the search was ended before it was over.
      at_capacity: whether room ran out and the search expanded less than it wanted.
      ledger: the counters of the search, over all problems of the batch.
      peak_blocks: most cache blocks in use at once, likewise.

    Raises:
      ValueError: there is no such problem, or `about` has an entry of that name.
    """
    problems = result.tree.parent.shape[0]
    if not 0 <= problem < problems:
        raise ValueError(f"problem is {problem}; the result has {problems}, counted from 0")
    own, ledger, peak = jax.device_get(
        (
            jax.tree.map(
                lambda field: field[problem],
                result.replace(ledger=None, peak_blocks=None),
            ),
            result.ledger,
            result.peak_blocks,
        )
    )
    found = {
        "format": FORMAT,
        "version": VERSION,
        "title": title,
        "nodes": list(_nodes(own.tree, decode)),
        "answers": list(_answers(own, decode) if judged is None else _judged(own, judged, decode)),
        "frontier": own.frontier[own.frontier != NO_NODE].tolist(),
        "reason": (_explain(own) if judged is None else judged.reason) or None,
        "cut": bool(own.cut),
        "at_capacity": bool(own.at_capacity),
        "ledger": ledger.totals(),
        "peak_blocks": int(peak),
    }
    if taken := sorted(found.keys() & about.keys()):
        raise ValueError(f"about has {', '.join(taken)}, which the document says itself")
    return found | dict(about)


def number(value: float | np.floating | Array) -> float | str:
    """A float, read as a float32, as JSON can hold it; see `document`."""
    if np.isfinite(value):
        return float(str(np.float32(value)))
    return "NaN" if np.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _answers(own: SearchResult, decode: Decode) -> Iterator[dict[str, Any]]:
    """The search's own answers, of one problem's arrays."""
    for node, value, row in zip(own.answers, own.values, own.tokens, strict=True):
        if node != NO_NODE:
            yield {"node": int(node), "value": number(value), **_path(row, decode)}


def _judged(own: SearchResult, judged: Judged, decode: Decode) -> Iterator[dict[str, Any]]:
    """The answers that a task names."""
    tree = _batch_of_one(own.tree)
    for node in judged.answers:
        tokens = [token for thought in path_tokens(tree, 0, node) for token in thought]
        value = number(own.tree.value[node])
        yield {"node": node, "value": value, "tokens": tokens, "text": decode(tokens)}


def _explain(own: SearchResult) -> str:
    return explain(_batch_of_one(own))


def _batch_of_one(own: Any) -> Any:
    return jax.tree.map(lambda field: field[None], own)


def _path(row: np.ndarray, decode: Decode) -> dict[str, Any]:
    tokens = row[row != NO_TOKEN].tolist()
    return {"tokens": tokens, "text": decode(tokens)}


def _nodes(tree: SearchTree, decode: Decode) -> Iterator[dict[str, Any]]:
    """The nodes of one problem, of numpy arrays without the problem axis."""
    used = tree.parent != NO_NODE
    used[ROOT] = True
    paths: dict[int, list[int]] = {}
    texts: dict[int, str] = {}
    for node in np.flatnonzero(used)[np.argsort(tree.depth[used], kind="stable")].tolist():
        parent = None if node == ROOT else int(tree.parent[node])
        tokens = tree.tokens[node][tree.tokens[node] != NO_TOKEN].tolist()
        paths[node] = tokens if parent is None else paths[parent] + tokens
        texts[node] = decode(paths[node])
        before = "" if parent is None else texts[parent]
        yield {
            "id": node,
            "parent": parent,
            "depth": int(tree.depth[node]),
            "tokens": tokens,
            # Decoded alone, tokens can lose a space; on the path, they can complete a character
            # that the parent's end within, so that the text before them changes.
            "text": texts[node].removeprefix(before)
            if texts[node].startswith(before)
            else decode(tokens),
            "raw_logprob": number(tree.raw_logprob[node]),
            "logprob": number(tree.logprob[node]),
            "value": number(tree.value[node]),
            "visits": int(tree.visits[node]),
            "terminal": bool(tree.terminal[node]),
            "outcome": OUTCOME_NAMES[tree.outcome[node]],
        }
