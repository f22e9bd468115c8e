"""One line about a pytree: its fields with the dtypes and shapes of their arrays."""

from __future__ import annotations

import dataclasses
import re
from itertools import groupby
from typing import Any

SUMMARISED = 4
"""From so many fields on, those that all look alike are counted instead of named."""


def describe(value: Any) -> str:
    """The line, such as `KVPool(tokens=i32[40,16], ref_count=i32[40])`; reads no array."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{_short_dtype(value.dtype)}[{','.join(map(str, value.shape))}]"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return f"{type(value).__name__}({_fields(fields)})"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return f"{type(value).__name__}({_fields(value._asdict())})"
    if isinstance(value, dict):
        return f"{{{_fields(value)}}}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(_runs([describe(item) for item in value]))})"
    if isinstance(value, type):
        return value.__name__
    return str(value)


def _fields(fields: dict[str, Any]) -> str:
    told = {name: describe(value) for name, value in fields.items() if value is not None}
    if len(told) >= SUMMARISED and len(set(told.values())) == 1:
        return _runs(list(told.values()))[0]
    return ", ".join(f"{name}={text}" for name, text in told.items())


def _runs(texts: list[str]) -> list[str]:
    """The texts, each run of equal ones told once with its number."""
    runs = [(text, len(list(run))) for text, run in groupby(texts)]
    return [text if number == 1 else f"{number} × {text}" for text, number in runs]


def _short_dtype(dtype: Any) -> str:
    """f32, bf16, i8, u32, bool, …"""
    name = re.sub(r"^(b?)float", r"\1f", str(dtype))
    return re.sub(r"^(u?)int", lambda match: match[1] or "i", name)
