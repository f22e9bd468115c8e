"""The page in a real browser: Chromium, driven by Playwright, without a network."""

from __future__ import annotations

import math
import os
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from dendrite_jax.search import ROOT, SearchResult
from dendrite_jax.search.export import Judged, to_html
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


def show(page: Page, result: SearchResult, tmp_path: Path, title: str = "", **more: Any) -> None:
    path = tmp_path / "search.html"
    path.write_text(to_html(result, decode=decode, title=title, **more), encoding="utf-8")
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


def is_seen(page: Page, selector: str) -> bool:
    """Whether all of an element is in the window of the tree."""
    inside: bool = page.evaluate(
        """selector => {
          const frame = document.querySelector("#view").getBoundingClientRect();
          const box = document.querySelector(selector).getBoundingClientRect();
          return box.left >= frame.left && box.right <= frame.right
            && box.top >= frame.top && box.bottom <= frame.bottom;
        }""",
        selector,
    )
    return inside


def view(page: Page) -> tuple[float, float, float]:
    """Where the tree stands in its window, and its scale."""
    transform = page.locator("#canvas").get_attribute("transform")
    x, y, scale = map(float, re.findall(r"-?\d[\d.e-]*", transform or ""))
    return x, y, scale


def center(page: Page, selector: str) -> tuple[float, float]:
    box = page.locator(selector).bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


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
    assert is_seen(page, "[data-id='0']")  # though the tree is larger than the window
    page.locator("[data-id='4999']").focus()
    assert is_seen(page, "[data-id='4999'] circle")
    page.keyboard.press("Enter")
    assert page.locator("#text").inner_text() == "thought 4998"


def test_a_search_that_found_nothing_is_a_page_too(page: Page, tmp_path: Path) -> None:
    show(page, make_result([], at_capacity=True), tmp_path)
    assert drawn(page) == [0]
    assert "stopped growing for want of room" in page.locator("#summary").inner_text()


def test_the_heading_names_the_search_and_why_it_found_nothing(page: Page, tmp_path: Path) -> None:
    about = {"method": "dvts", "sizes": {"breadth": 2, "proposals": 8}, "seed": 7, "model": "m<b>"}
    judged = Judged([], "1 path ended, not on 24")
    show(page, make_result(NODES, answers=[ANSWER]), tmp_path, judged=judged, about=about)
    heading = "dvts · breadth 2 · proposals 8 · seed 7 · model m<b>"
    assert page.locator("#about").inner_text() == heading
    assert page.locator("#reason").inner_text() == "No answer: 1 path ended, not on 24"
    assert page.locator(".node.answer").count() == 0
    show(page, make_result(NODES, answers=[ANSWER]), tmp_path, judged=Judged([1, ANSWER]))
    rings = page.locator(".node.answer").evaluate_all("groups => groups.map(g => g.dataset.id)")
    assert sorted(rings) == ["1", str(ANSWER)]
    assert page.locator(".selected").get_attribute("data-id") == "1"
    assert not page.locator("#reason").is_visible()
    assert not page.locator("#about").is_visible()


# Three of "same" below the root, the second with a child and the third with two, one of them twice.
EQUAL = [
    *(Node(ROOT, "same", value) for value in (-1.0, -1.0, -3.0)),
    Node(ROOT, "other", -2.0),
    Node(ROOT, "same", -math.inf),
    Node(2, "child", -0.5),
    Node(3, "child", -0.25),
    Node(3, "grown", -0.75),
]


def test_equal_siblings_are_folded_and_listed(page: Page, tmp_path: Path) -> None:
    show(page, make_result(EQUAL, answers=[6]), tmp_path)
    assert drawn(page) == [0, 1, 4, 7, 8]  # what grows from any of them grows from the one drawn
    count = {
        node: page.locator(f"[data-id='{node}'] .count").all_text_contents() for node in drawn(page)
    }
    assert count == {0: [], 1: ["×3"], 4: [], 7: ["×2"], 8: []}
    ringed = page.locator(".node.answer").get_attribute("data-id")
    assert ringed == page.locator(".selected").get_attribute("data-id") == "7"
    assert fact(page, "node") == "6"  # the answer itself, a row below the better one
    assert page.locator("#equals li").all_inner_texts() == [
        "node 7, score -0.25",
        "node 6, score -0.5",
    ]
    page.locator("#equals li").first.click()
    assert fact(page, "node") == "7"
    assert page.locator("#path pre").all_inner_texts() == ["same", "child"]

    page.locator("[data-id='1'] .fold").click()
    assert drawn(page) == [0, 1, 4]
    page.locator("#rejected").check()
    assert drawn(page) == [0, 1, 4, 5]  # a rejected one is not equal to the others
    page.locator("#equal").uncheck()
    page.get_by_role("button", name="Unfold all").click()
    assert drawn(page) == list(range(9))
    assert page.locator(".count").count() == 0


def random_tree(rows: int) -> list[Node]:
    """Texts of all lengths, some of them twice, below nodes anywhere."""
    chance = random.Random(1)
    return [
        Node(
            chance.randint(max(ROOT, row - 12), row),
            "wide " * chance.randint(1, 12) + str(chance.randint(0, 2)),
            -chance.random(),
        )
        for row in range(rows)
    ]


def test_edges_end_at_the_nodes_and_cross_no_label(page: Page, tmp_path: Path) -> None:
    """Points along each edge, every half pixel, against the boxes that the browser gives labels."""
    show(page, make_result(random_tree(60)), tmp_path)
    found = page.evaluate(
        """() => {
          const moved = group => group.transform.baseVal.consolidate().matrix;
          const groups = [...document.querySelectorAll(".node")];
          const boxes = groups.flatMap(group => [...group.querySelectorAll("text")].map(text => {
            const [box, {e, f}] = [text.getBBox(), moved(group)];
            return {left: box.x + e, right: box.x + box.width + e,
                    top: box.y + f, bottom: box.y + box.height + f};
          }));
          let crossed = 0;
          const ends = [];
          for (const edge of document.querySelectorAll(".edge")) {
            const length = edge.getTotalLength();
            for (let at = 0; at <= length; at += 0.5) {
              const {x, y} = edge.getPointAtLength(at);
              crossed += boxes.filter(box => box.left < x && x < box.right
                                             && box.top < y && y < box.bottom).length;
            }
            const end = edge.getPointAtLength(length);
            ends.push([end.x + 6, end.y]);
          }
          return {crossed, ends, nodes: groups.map(group => [moved(group).e, moved(group).f])};
        }"""
    )
    assert found["crossed"] == 0
    assert len(found["ends"]) == len(found["nodes"]) - 1 > 40
    # At the left edge of the circle, whose radius is 6; the path's numbers are float32.
    for end, node in zip(sorted(found["ends"]), sorted(found["nodes"])[1:], strict=True):
        assert end == pytest.approx(node, abs=0.01)


@pytest.mark.parametrize(("width", "height"), [(400, 800), (1280, 800)])
def test_the_tree_opens_fitted_and_nothing_is_wider_than_the_window(
    page: Page, tmp_path: Path, width: int, height: int
) -> None:
    page.set_viewport_size({"width": width, "height": height})
    about = {"method": "tree_of_thoughts", "sizes": {"breadth": 5}, "seed": 0, "model": "m" * 90}
    show(page, make_result(random_tree(60)), tmp_path, title="t" * 200, about=about)
    assert all(is_seen(page, f"[data-id='{node}']") for node in drawn(page))
    beyond = page.evaluate(
        """() => [...document.querySelectorAll("body *:not(svg *)")].filter(each => {
          const {left, right} = each.getBoundingClientRect();
          return left < 0 || right > innerWidth;
        }).map(each => each.outerHTML)"""
    )
    assert beyond == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for name in ("worst", "best"):
        assert page.locator(f"#{name}").is_visible()
    view_box = page.locator("#view").bounding_box()
    assert view_box is not None
    assert view_box["height"] > height / 4
    # A window of another size fits it anew.
    page.set_viewport_size({"width": width - 60, "height": height})
    page.wait_for_function(
        "width => document.querySelector('#tree').clientWidth < width", arg=width
    )
    assert all(is_seen(page, f"[data-id='{node}']") for node in drawn(page))


def test_zoom_by_wheel_buttons_and_keys(page: Page, tmp_path: Path) -> None:
    show(page, make_result(NODES), tmp_path)
    first = view(page)
    assert first[2] == 1  # a small tree is not blown up
    before = center(page, "[data-id='4'] circle")
    page.mouse.move(*before)
    page.mouse.wheel(0, -200)
    page.wait_for_function(
        "scale => !document.querySelector('#canvas').outerHTML.includes(scale)", arg="scale(1)"
    )
    assert view(page)[2] == pytest.approx(math.exp(200 / 400))
    assert center(page, "[data-id='4'] circle") == pytest.approx(before, abs=1)  # stays put
    page.get_by_role("button", name="Fit").click()
    assert view(page) == first
    page.get_by_role("button", name="zoom in").click()
    assert view(page)[2] == pytest.approx(1.25)
    page.get_by_role("button", name="zoom out").click()
    assert view(page) == pytest.approx(first)

    page.locator("#view").focus()
    for key, x, y, scale in (
        ("ArrowLeft", 60, 0, 1),
        ("ArrowDown", 60, -60, 1),
        ("ArrowRight", 0, -60, 1),
        ("ArrowUp", 0, 0, 1),
        ("+", None, None, 1.25),
        ("-", 0, 0, 1),
        ("+", None, None, 1.25),
        ("0", 0, 0, 1),
    ):
        page.keyboard.press(key)
        assert view(page)[2] == pytest.approx(scale), key
        if x is not None and y is not None:
            assert view(page)[:2] == pytest.approx((first[0] + x, first[1] + y)), key
    # The page's own zoom stays the browser's.
    page.keyboard.press("Control+-")
    assert view(page) == pytest.approx(first)


def test_a_drag_pans_and_selects_nothing(page: Page, tmp_path: Path) -> None:
    show(page, make_result(NODES), tmp_path)
    first, start = view(page), center(page, "[data-id='2'] circle")
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(start[0] + 30, start[1] - 50, steps=5)
    page.mouse.up()
    assert view(page) == pytest.approx((first[0] + 30, first[1] - 50, first[2]), abs=0.5)
    assert page.locator(".selected").get_attribute("data-id") == "0"
    page.locator("[data-id='2'] circle").click()
    assert page.locator(".selected").get_attribute("data-id") == "2"


def test_two_fingers_pinch(page: Page, tmp_path: Path) -> None:
    """From 100 to 200 pixels apart, about one middle: twice the scale, and the middle stays."""
    show(page, make_result(NODES), tmp_path)
    x, y, scale = view(page)
    frame = page.locator("#view").bounding_box()
    assert frame is not None
    middle = frame["x"] + 300, frame["y"] + 200
    page.evaluate(
        """([x, y]) => {
          const at = (name, pointerId, clientX) => document.querySelector("#tree").dispatchEvent(
            new PointerEvent(name, {pointerId, clientX, clientY: y, button: 0, bubbles: true}));
          at("pointerdown", 1, x - 50); at("pointerdown", 2, x + 50);
          at("pointermove", 1, x - 100); at("pointermove", 2, x + 100);
          at("pointerup", 1, x - 100); at("pointerup", 2, x + 100);
        }""",
        middle,
    )
    pinched = view(page)
    assert pinched[2] == pytest.approx(2 * scale)
    assert pinched[0] == pytest.approx(300 - 2 * (300 - x))
    assert pinched[1] == pytest.approx(200 - 2 * (200 - y))


def luminance(color: str) -> float:
    """Of WCAG 2, of a browser's `rgb(r, g, b)`."""
    channels = [int(channel) / 255 for channel in re.findall(r"\d+", color)[:3]]
    red, green, blue = (
        channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4
        for channel in channels
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_words_stand_out_in_light_and_dark(page: Page, tmp_path: Path) -> None:
    """WCAG 2 asks for a contrast of 4.5."""
    show(page, make_result([], at_capacity=True), tmp_path, title="t", about={"seed": 0})
    pages = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        pages.append(luminance(ground))
        for selector in ("#title", "#about", "#summary", "#reason", ".key"):
            color = page.locator(selector).first.evaluate("each => getComputedStyle(each).color")
            low, high = sorted([luminance(color), luminance(ground)])
            assert (high + 0.05) / (low + 0.05) >= 4.5, (scheme, selector)
    assert pages[0] > 0.9 > 0.1 > pages[1]
