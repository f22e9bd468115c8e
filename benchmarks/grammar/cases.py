"""A vocabulary of the usual size and grammars of the usual kinds, made without downloads."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from dendrite_jax.grammar import Grammar

VOCAB_SIZE = 128_256

_LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
_OTHER_SCRIPTS = "éüñßçøабвгдежзийклмнопрстالعربيةहिन्दी中文字符日本語한국어😀🎉"
_SYMBOLS = '_-./"\\:,{}[]()=<>'
# Divided by bars.
_JSON = (
    '": |": "|","|", "|"}|"},|{"|": {|": [|"]|],|}}|]}|}]|[]|{}|,"|, |: |"\n|",\n|{\n|\\"|\\n|\\u|'
    "true|false|null|true,|false,|null,|://|==|())"
)
_WORDS = """
name title summary created updated owner status priority category description version amount
currency country city street latitude longitude phone website language notes tags score rating
"""


@dataclasses.dataclass(frozen=True)
class SyntheticVocabulary:
    """A byte-level vocabulary: all bytes, runs of white space, numbers, JSON pieces, words."""

    token_bytes: list[bytes | None]
    eos_ids: tuple[int, ...]


def synthetic_vocabulary(size: int = VOCAB_SIZE, seed: int = 0) -> SyntheticVocabulary:
    """`size` different tokens; the last is special and ends the text."""
    rng = random.Random(seed)
    runs = [char * count for char in " \n\t" for count in range(2, 81)]
    fixed = [bytes([byte]) for byte in range(256)]
    fixed += [text.encode() for text in (*_JSON.split("|"), *runs, *map(str, range(10, 1000)))]
    tokens = dict.fromkeys(fixed)
    weights = [1 / (rank + 1) for rank in range(len(_LETTERS))]
    while len(tokens) < size - 1:
        kind = rng.random()
        if kind < 0.85:
            text = "".join(rng.choices(_LETTERS, weights, k=min(rng.randint(2, 14) for _ in "ab")))
        elif kind < 0.95:
            text = "".join(rng.choices(_OTHER_SCRIPTS, k=rng.randint(1, 4)))
        else:
            text = "".join(rng.choices(_LETTERS + _SYMBOLS, k=rng.randint(2, 8)))
        text = rng.choice([" " + text, text, text.capitalize()])
        data = text.encode()
        # Some tokens of real vocabularies end inside a character.
        tokens[data[:-1] if rng.random() < 0.02 else data] = None
    return SyntheticVocabulary([*list(tokens)[: size - 1], None], (size - 1,))


def _closed(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _ten_properties() -> dict[str, Any]:
    text, whole = {"type": "string"}, {"type": "integer"}
    address = {"street": text, "city": text, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}
    return _closed(
        {
            "id": whole,
            "name": {"type": "string", "maxLength": 40},
            "email": {"type": "string", "format": "email"},
            "created": {"type": "string", "format": "date-time"},
            "tags": {"type": "array", "items": text, "maxItems": 5},
            "active": {"type": "boolean"},
            "score": {"type": "number", "minimum": 0, "maximum": 100},
            "status": {"enum": ["open", "closed", "pending"]},
            "address": _closed(address, ["street", "city"]),
            "notes": text,
        },
        ["id", "name", "email", "address"],
    )


def _hundred_properties(required: bool) -> dict[str, Any]:
    words = _WORDS.split()
    types: list[dict[str, Any]] = [
        {"type": "string"},
        {"type": "integer"},
        {"type": "number"},
        {"type": "boolean"},
        {"enum": ["low", "medium", "high"]},
        {"type": "string", "maxLength": 20},
        {"type": "array", "items": {"type": "integer"}},
    ]
    names = [f"{words[i % 25]}_{words[i * 7 % 25]}_{i}" for i in range(100)]
    properties = {name: types[i % len(types)] for i, name in enumerate(names)}
    return _closed(properties, names if required else [])


def flags() -> Grammar:
    """Ten required yes-or-no properties without white space: most of the text is forced."""
    names = _WORDS.split()[:10]
    schema = _closed({name: {"type": "boolean"} for name in names}, names)
    return Grammar.from_json_schema({**schema, "x-guidance": {"whitespace_flexible": False}})


def _tree() -> dict[str, Any]:
    children = {"type": "array", "items": {"$ref": "#/$defs/node"}}
    node = _closed({"value": {"type": "string"}, "children": children}, ["value"])
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"}


def benchmark_grammars() -> dict[str, tuple[Grammar, int | None]]:
    """Each grammar's name, the grammar and the recursion depth it is compiled with."""
    number = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
    return {
        "choice of 8": (Grammar.from_choice(_WORDS.split()[:8]), None),
        "IPv4 regex": (Grammar.from_regex(rf"({number}\.){{3}}{number}"), None),
        "10 properties": (Grammar.from_json_schema(_ten_properties()), None),
        "100 required": (Grammar.from_json_schema(_hundred_properties(True)), None),
        "100 optional": (Grammar.from_json_schema(_hundred_properties(False)), None),
        "tree, depth 4": (Grammar.from_json_schema(_tree()), 4),
    }
