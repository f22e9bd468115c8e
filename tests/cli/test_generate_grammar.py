"""`dendrite generate` under a grammar."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest

from cli.conftest import Dendrite

SIZES = ("--max-new-tokens", "40", "--max-context", "64", "-n", "2")
CLOSED = {
    "type": "object",
    "properties": {"leaf": {"type": "boolean"}},
    "required": ["leaf"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
NESTED = {"type": "array", "items": {"$ref": "#"}, "maxItems": 1}
slow = partial(pytest.param, marks=pytest.mark.slow)
LARK = 'start: "yes" | "(" start ")"\n'


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


@pytest.mark.parametrize(
    ("option", "value", "path", "pattern"),
    [
        slow("--json-schema", json.dumps(CLOSED), "table", r'\{"leaf":(true|false)\}'),
        slow("--json-schema", json.dumps(NESTED), "exit-on-miss", r"[\[\]\s]*"),
        slow("--regex", "[0-9]{3}", "table", "[0-9]{3}"),
        ("--lark", LARK, "exit-on-miss", r"\(*yes\)*"),
        slow("--choice", "oak,elm tree", "table", "oak|elm tree"),
    ],
)
def test_the_text_is_of_the_language(
    dendrite: Dendrite,
    checkpoint: str,
    tmp_path: Path,
    option: str,
    value: str,
    path: str,
    pattern: str,
) -> None:
    if option in ("--json-schema", "--lark"):
        file = tmp_path / "grammar"
        file.write_text(value)
        value = str(file)
    ran = dendrite(
        "generate", "--model", checkpoint, "--prompt", "x", *SIZES, option, value, "--json"
    )
    assert (ran.code, ran.err) == (0, "")
    report = json.loads(ran.out)
    assert report["grammar"] == {"path": path}
    for completion in report["completions"]:
        if completion["finish"] == "stop_token":
            assert re.fullmatch(pattern, completion["text"])
        else:
            assert path == "exit-on-miss"
            assert completion["finish"] == "length"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--regex", "a", "--choice", "a,b"], "--regex, --choice cannot be given together"),
        (["--regex", "(a"], "offset"),
        (["--choice", "a,,b"], "--choice 'a,,b': text 2 is empty"),
        (["--json-schema", "missing.json"], "'missing.json' does not exist"),
        (["--json-schema", "{bad}"], "the schema is not JSON"),
        (["--json-schema", "{unsupported}"], "keyword 'not'"),
        (["--lark", "{bad}"], "invalid Lark grammar"),
        (["--lark", "{binary}"], "is not UTF-8 at byte 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_grammars_are_one_line_and_exit_code_2(
    dendrite: Dendrite, checkpoint: str, tmp_path: Path, arguments: list[str], message: str
) -> None:
    (tmp_path / "bad").write_text("{")
    (tmp_path / "unsupported").write_text('{"not": {"const": 1}}')
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    given = [re.sub(r"^\{(\w+)\}$", rf"{tmp_path}/\1", argument) for argument in arguments]
    ran = dendrite("generate", "--model", checkpoint, "--prompt", "x", *SIZES, *given)
    assert (ran.code, ran.out) == (2, "")
    (line,) = ran.err.splitlines()
    assert line.startswith("dendrite: ")
    assert re.search(message, line)
