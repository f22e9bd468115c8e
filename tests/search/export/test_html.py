"""The text of the page; what a browser makes of it is in test_html_oracle.py."""

from __future__ import annotations

import html.parser
import json
import math
import re

from dendrite_jax.search import ROOT
from dendrite_jax.search.export import to_html, to_json
from search.export.made import Node, decode, make_result

NASTY = "</script><!-- <script> ]]> \u2028 {{script}} &amp; \"'"
NODES = [Node(ROOT, NASTY, 0.5), Node(1, "b", -math.inf)]
LOADING_ATTRIBUTES = {"src", "href", "srcset", "data", "action", "poster", "background"}


class Reader(html.parser.HTMLParser):
    """Collects the tags, the text in each script and the attributes that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.loading: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loading += [name for name, _ in attrs if name in LOADING_ATTRIBUTES]
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] == "script":
            self.scripts[-1] += data


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    return reader


def test_the_page_holds_the_json_whatever_the_texts_are() -> None:
    result = make_result(NODES, answers=[1])
    reader = read(to_html(result, decode=decode, title=NASTY))
    data, script = reader.scripts
    assert json.loads(data) == json.loads(to_json(result, decode=decode, title=NASTY))
    assert "JSON.parse" in script
    # A tag of a text would be one more than those of a search with plain texts.
    plain = read(to_html(make_result([Node(ROOT, "a")]), decode=decode))
    assert reader.tags == plain.tags
    assert set(re.findall("[<>&]", data)) == set()


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = to_html(make_result(NODES), decode=decode)
    assert read(page).loading == []
    assert "default-src 'none'" in page
    assert not re.search(r"url\(|@import|\bfetch\(|\bimport\b", page)
    # The only address is the name of SVG's namespace, which nothing is loaded from.
    assert set(re.findall(r"https?://[^\"]*", page)) == {"http://www.w3.org/2000/svg"}


def test_no_marker_of_the_template_is_left() -> None:
    assert "{{" not in to_html(make_result([Node(ROOT, "a")]), decode=decode)
