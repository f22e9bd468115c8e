"""Success against generated tokens as an SVG picture."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 60, 200, 40, 50
COLORS = {
    "greedy": "#6b7280",
    "sample": "#6b7280",
    "best-of-n": "#2563eb",
    "tot-bfs": "#c2410c",
    "tot-dfs": "#b45309",
    "beam": "#7c3aed",
    "mcts": "#15803d",
}
CONTROL = "#9ca3af"


def success_plot(rows: Sequence[dict[str, Any]]) -> str:
    """Draws the rows of `game24.run`: success with its interval over tokens, on a log scale.

    Rows of one method are joined by a line. Dashed: uniform legal play for as many tokens.
    """
    low = 10 ** math.floor(math.log10(min(row["tokens_per_puzzle"] for row in rows)))
    high = 10 ** math.ceil(math.log10(max(row["tokens_per_puzzle"] for row in rows)))

    def x(tokens: float) -> float:
        share = math.log(tokens / low) / math.log(high / low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(rate: float) -> float:
        return TOP + (1 - rate) * (HEIGHT - TOP - BOTTOM)

    parts = _axes(x, y, low, high)
    ordered = sorted(rows, key=lambda row: row["tokens_per_puzzle"])
    uniform = [(x(row["tokens_per_puzzle"]), y(row["uniform_play_any_right"])) for row in ordered]
    parts.append(_line(uniform, CONTROL, 'stroke-dasharray="5 4"'))
    methods = defaultdict(list)
    for row in ordered:
        methods[row["search"]].append(row)
    for method, own in methods.items():
        points = [(x(row["tokens_per_puzzle"]), y(row["best_answer_right"])) for row in own]
        parts.append(_line(points, COLORS[method]))
        for row, (at, height) in zip(own, points, strict=True):
            bottom, top = (y(end) for end in row["best_answer_interval"])
            parts.append(_line([(at, bottom), (at, top)], COLORS[method], 'stroke-opacity="0.4"'))
            title = f"{row['method']}: {row['best_answer_right']:.0%}"
            parts.append(
                f'<circle cx="{at:.1f}" cy="{height:.1f}" r="4" fill="{COLORS[method]}">'
                f"<title>{escape(title)}</title></circle>"
            )
    parts += _legend([*methods, "uniform legal play, any right"])
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12">'
    )
    page = f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>'
    return "\n".join([head, page, *parts, "</svg>"]) + "\n"


def _axes(x: Any, y: Any, low: float, high: float) -> list[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [_text(LEFT, 22, "Game of 24: puzzles whose best answer is right", size=14)]
    for percent in range(0, 101, 20):
        height = y(percent / 100)
        parts.append(_line([(LEFT, height), (right, height)], "#e5e7eb"))
        parts.append(_text(LEFT - 8, height + 4, f"{percent}%", anchor="end"))
    tokens = low
    while tokens <= high:
        parts.append(_line([(x(tokens), TOP), (x(tokens), bottom)], "#e5e7eb"))
        parts.append(_text(x(tokens), bottom + 18, f"{tokens:,}", anchor="middle"))
        tokens *= 10
    middle = (LEFT + right) / 2
    parts.append(_text(middle, HEIGHT - 10, "tokens generated a puzzle", anchor="middle"))
    return parts


def _legend(names: Sequence[str]) -> list[str]:
    parts = []
    for index, name in enumerate(names):
        height = TOP + 20 * index + 10
        color = COLORS.get(name, CONTROL)
        left = WIDTH - RIGHT + 20
        parts.append(f'<circle cx="{left}" cy="{height - 4}" r="4" fill="{color}"/>')
        parts.append(_text(left + 10, height, name))
    return parts


def _line(points: Sequence[tuple[float, float]], color: str, style: str = "") -> str:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5" {style}/>'


def _text(x: float, y: float, text: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
        f'fill="#374151">{escape(text)}</text>'
    )
