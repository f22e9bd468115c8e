"""A finished search as one web page that draws its tree and loads nothing from elsewhere."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from dendrite_jax.search.export.json_document import Decode, Judged, document
from dendrite_jax.search.result import SearchResult


def to_html(
    result: SearchResult,
    problem: int = 0,
    *,
    decode: Decode,
    title: str = "",
    judged: Judged | None = None,
    about: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """One problem's tree as a self-contained page: nodes coloured by score, a click for the text.

    The page holds the same JSON as `to_json` gives. It opens on the whole tree, fitted to the
    window; one of many nodes opens on the paths to the answers, and the rest unfolds on a click.
    Thoughts of one text under one parent are drawn once, with their number.

    Args:
      result: of any search.
      problem: which of the batch.
      decode: gives the text of token ids.
      title: the heading, such as the prompt.
      judged: the answers and the reason to show; the search's own when None.
      about: method, sizes, seed and model for the heading, and more; see `document`.

    Raises:
      ValueError: as `document`.
    """
    found = document(result, problem, decode=decode, title=title, judged=judged, about=about)
    parts = {
        "style": _file("page.css"),
        "script": _file("page.js") + _file("page.view.js"),
        "data": script_json(found),
    }
    # One pass, so that a marker in a thought's text stays text.
    return re.sub(r"\{\{(\w+)\}\}", lambda marker: parts[marker[1]], _file("page.html"))


def script_json(value: object) -> str:
    """JSON in ASCII that no HTML parser can take for a tag, a comment or the script's end."""
    text = json.dumps(value, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")
