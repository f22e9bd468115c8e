"""Checks of the fields of a search's config."""

from __future__ import annotations


def check_positive(config: object, *fields: str) -> None:
    """Raises ValueError for the first of the fields that is below 1."""
    for field in fields:
        value = getattr(config, field)
        if value < 1:
            raise ValueError(f"{field} is {value}; it must be at least 1")
