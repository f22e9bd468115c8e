"""The small JSON files of a Hugging Face model folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CONFIG = "config.json"
GENERATION_CONFIG = "generation_config.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"


def read_json(path: Path, error: type[ValueError]) -> dict[str, Any]:
    """The JSON object in the file `path`; raises `error` when there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise error(f"{path}: cannot be read ({exc.strerror or exc})") from exc
    except ValueError as exc:
        raise error(f"{path}: not valid JSON ({exc})") from exc
    if not isinstance(value, dict):
        raise error(f"{path}: expected a JSON object, found {type(value).__name__}")
    return value


def read_json_if_present(path: Path, error: type[ValueError]) -> dict[str, Any]:
    """The JSON object in the file `path`, or an empty one when the file does not exist."""
    return read_json(path, error) if path.exists() else {}


def token_ids(field: str, *sources: Mapping[str, Any], error: type[ValueError]) -> tuple[int, ...]:
    """The token ids under `field` in the first source that sets it; a single id counts as a list.

    Raises `error` when the value is anything but ids (integers >= 0).
    """
    for source in sources:
        value = source.get(field)
        if value is None:
            continue
        ids = value if isinstance(value, list) else [value]
        for item in ids:
            if isinstance(item, bool) or not isinstance(item, int) or item < 0:
                raise error(f"{field}: expected token ids (integers >= 0), found {item!r}")
        return tuple(ids)
    return ()
