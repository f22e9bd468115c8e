"""A finished search as JSON text and as a `rich` tree."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any

from rich.markup import escape
from rich.tree import Tree

from dendrite_jax.search.export.json_document import Decode, Judged, document
from dendrite_jax.search.result import SearchResult
from dendrite_jax.search.tree import ROOT

SHOWN = 8
"""Most children of a node that are drawn, the best first."""


def to_json(
    result: SearchResult,
    problem: int = 0,
    *,
    decode: Decode,
    title: str = "",
    judged: Judged | None = None,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """One problem of a search as one line of JSON; `document` says what is in it."""
    found = document(result, problem, decode=decode, title=title, judged=judged, about=about)
    return json.dumps(found, ensure_ascii=False, allow_nan=False)


def to_rich(
    result: SearchResult,
    problem: int = 0,
    *,
    decode: Decode,
    title: str = "",
    judged: Judged | None = None,
    kept: Collection[int] | None = None,
    show_value: Callable[[float], str] = "{:.3g}".format,
) -> Tree:
    """One problem's distinct thoughts, rejected ones left out, for a `rich` console.

    Those that were grown on, kept or answers stand first and are bold. A thought that was sampled
    twice from one parent is drawn once, and no more than `SHOWN` under a parent are.

    Args:
      result: of any search, or of a search that is not over.
      problem: which of the batch.
      decode: gives the text of token ids.
      title: the text of the root.
      judged: the answers; the search's own when None.
      kept: nodes that the search goes on from; `result.frontier` when None.
      show_value: the text of a node's value.
    """
    found = document(result, problem, decode=decode, title=title, judged=judged)
    children = defaultdict(list)
    for node in found["nodes"]:
        if node["id"] != ROOT and float(node["value"]) > -math.inf:
            children[node["parent"]].append(node)
    on = found["frontier"] if kept is None else kept
    important = {*on, *(answer["node"] for answer in found["answers"]), *children}

    def rank(node: dict[str, Any]) -> tuple[bool, bool, float]:
        return node["id"] not in children, node["id"] not in important, -float(node["value"])

    view = Tree(f"[bold]{escape(title)}[/]")
    unfinished = [(view, ROOT)]
    while unfinished:
        above, parent = unfinished.pop()
        distinct: dict[str, dict[str, Any]] = {}
        for node in sorted(children.get(parent, []), key=rank):
            distinct.setdefault(node["text"].strip(), node)
        for label, node in list(distinct.items())[:SHOWN]:
            style = "bold green" if node["id"] in important else "dim"
            value = show_value(float(node["value"]))
            branch = above.add(f"[{style}]{escape(label)}[/]  {escape(value)}")
            unfinished.append((branch, node["id"]))
        if len(distinct) > SHOWN:
            above.add(f"[dim]… {len(distinct) - SHOWN} more[/]")
    return view
