"""The page in a real browser: Chromium, driven by Playwright, without a network."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from dendrite_jax.search import ROOT, SearchResult
from dendrite_jax.search.export import to_html
from search.export.made import Node, decode, make_result

NAMES = ("chromium", "chromium-browser", "google-chrome")
NASTY = "</script><script>document.title='broken'</script><img src=x onerror=alert(1)> \"'&amp;"
NODES = [
    Node(ROOT, "low", -2.0),
    Node(ROOT, "high", -0.5),
    Node(ROOT, "bad", -math.inf),
    Node(2, NASTY, -1.0, terminal=True),
    Node(2, "also low", -2.0),
]
ANSWER = 4


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = os.environ.get("DENDRITE_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail(f"no Chromium: install one of {NAMES}, or name its file in DENDRITE_CHROMIUM")
    with sync_playwright() as playwright:
        # Chromium's sandbox refuses to start as root, as in most containers.
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of its own; an error in its script, or a request, fails the test."""
    page = browser.new_page()
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text))
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("request", lambda request: wrong.append(request.url))
    yield page
    page.close()
    assert [message for message in wrong if not message.startswith("file://")] == []


def show(page: Page, result: SearchResult, tmp_path: Path, title: str = "") -> None:
    path = tmp_path / "search.html"
    path.write_text(to_html(result, decode=decode, title=title), encoding="utf-8")
    page.goto(path.as_uri())


def drawn(page: Page) -> list[int]:
    ids = page.locator(".node").evaluate_all("groups => groups.map(group => group.dataset.id)")
    return sorted(map(int, ids))


def fact(page: Page, name: str) -> str:
    return page.locator(f"[data-fact='{name}']").inner_text()


def place(page: Page, node: int) -> tuple[float, float]:
    transform = page.locator(f"[data-id='{node}']").get_attribute("transform")
    x, y = re.findall(r"[\d.]+", transform or "")
    return float(x), float(y)


def test_the_tree_is_drawn_and_opens_on_the_best_answer(page: Page, tmp_path: Path) -> None:
    show(page, make_result(NODES, answers=[ANSWER]), tmp_path, title=NASTY)
    assert page.title() == "Search tree"
    assert page.locator("h1").inner_text() == NASTY
    assert drawn(page) == [0, 1, 2, 4, 5]
    assert "1,048,576 tokens generated" in page.locator("#summary").inner_text()
    assert "5 nodes · 1 rejected · 1 answer" in page.locator("#summary").inner_text()
    assert page.locator(".selected").get_attribute("data-id") == str(ANSWER)
    assert page.locator("#text").inner_text() == NASTY
    # Children stand a column to the right of their parents, the best first, and share no place.
    assert place(page, 0)[0] < place(page, 1)[0] == place(page, 2)[0] < place(page, 4)[0]
    assert place(page, 2)[1] < place(page, 1)[1]
    assert len({place(page, node) for node in drawn(page)}) == 5


def test_colours_go_by_score(page: Page, tmp_path: Path) -> None:
    show(page, make_result(NODES, answers=[ANSWER]), tmp_path)
    fill = {
        node: page.locator(f"[data-id='{node}'] circle").get_attribute("fill")
        for node in drawn(page)
    }
    # −2, −1 and −0.5 are the worst, the median and the best of three.
    assert fill == {
        0: None,
        1: "rgb(68, 1, 84)",
        2: "rgb(253, 231, 37)",
        4: "rgb(33, 144, 140)",
        5: "rgb(68, 1, 84)",
    }
    assert page.locator("#worst").inner_text() == "-2"
    assert page.locator("#best").inner_text() == "-0.5"
    assert "answer" in (page.locator(f"[data-id='{ANSWER}']").get_attribute("class") or "").split()


def test_a_click_shows_a_nodes_text_path_and_numbers(page: Page, tmp_path: Path) -> None:
    show(page, make_result(NODES), tmp_path)
    page.locator(f"[data-id='{ANSWER}'] circle").click()
    assert page.locator("#text").inner_text() == NASTY
    assert page.locator("#path pre").all_inner_texts() == ["high", NASTY]
    assert fact(page, "score") == "-1"
    assert fact(page, "visits") == str(ANSWER)
    assert fact(page, "depth") == "2"
    assert fact(page, "terminal") == "yes"
    assert fact(page, "log-probability, model") == "-0.4"
    assert fact(page, "log-probability, sampled") == "-0.8"
    assert fact(page, "tokens") == " ".join(str(ord(character)) for character in NASTY)
    page.locator("#path li").first.click()
    assert page.locator("#text").inner_text() == "high"
    assert page.locator(".selected").get_attribute("data-id") == "2"


def test_rejected_nodes_are_shown_on_request(page: Page, tmp_path: Path) -> None:
    show(page, make_result(NODES), tmp_path)
    assert 3 not in drawn(page)
    page.locator("#rejected").check()
    page.locator("[data-id='3'] circle").click()
    assert fact(page, "score") == "rejected"


def test_subtrees_fold_by_mouse_and_by_keyboard(page: Page, tmp_path: Path) -> None:
    show(page, make_result(NODES), tmp_path)
    page.locator("[data-id='2'] .fold").click()
    assert drawn(page) == [0, 1, 2]
    assert page.locator("[data-id='2'] .fold").inner_html() == "+2"
    page.locator("[data-id='2']").focus()
    page.keyboard.press("Enter")  # selects
    page.keyboard.press("Enter")  # unfolds
    assert drawn(page) == [0, 1, 2, 4, 5]


def test_a_tree_of_5000_nodes_opens_on_its_answers_and_unfolds(page: Page, tmp_path: Path) -> None:
    chance = random.Random(0)
    nodes = [Node(ROOT, "start")]
    for row in range(1, 5000):
        nodes.append(
            Node(chance.randint(max(1, row - 200), row), f"thought {row}", -chance.random())
        )
    answer = 5000
    path = {ROOT, answer}
    parent = answer
    while parent != ROOT:
        parent = nodes[parent - 1].parent
        path.add(parent)
    beside = {row for row, node in enumerate(nodes, 1) if node.parent in path - {answer}}
    show(page, make_result(nodes, answers=[answer]), tmp_path)
    assert set(drawn(page)) == path | beside
    page.get_by_role("button", name="Unfold all").click()
    assert len(drawn(page)) == 5001
    page.locator("[data-id='4999'] circle").click()
    assert page.locator("#text").inner_text() == "thought 4998"


def test_a_search_that_found_nothing_is_a_page_too(page: Page, tmp_path: Path) -> None:
    show(page, make_result([], at_capacity=True), tmp_path)
    assert drawn(page) == [0]
    assert "stopped growing for want of room" in page.locator("#summary").inner_text()
