"""Pytrees whose fields may be plain functions."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

Self = TypeVar("Self", bound="Piece")


@dataclass_transform(frozen_default=True)
class Piece:
    """Base of frozen dataclasses that are pytrees: arrays in them are leaves, functions are static.

    A scorer is often a function and as often a pytree with weights; a field of a piece takes
    either. So a piece can be an argument of a jitted function as it is: its weights are operands of
    the program, not constants in it, and another function in it is another program.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(frozen=True)(cls)
        names = tuple(field.name for field in dataclasses.fields(cls))  # type: ignore[arg-type]

        def split(piece: Any) -> tuple[list[str], tuple[tuple[str, Any], ...]]:
            fixed = [name for name in names if _is_function(getattr(piece, name))]
            return (
                [name for name in names if name not in fixed],
                tuple((name, getattr(piece, name)) for name in fixed),
            )

        def flatten(piece: Any) -> tuple[list[Any], tuple[tuple[str, Any], ...]]:
            mapped, fixed = split(piece)
            return [getattr(piece, name) for name in mapped], fixed

        def flatten_with_keys(piece: Any) -> tuple[list[Any], tuple[tuple[str, Any], ...]]:
            mapped, fixed = split(piece)
            keyed = [(jax.tree_util.GetAttrKey(name), getattr(piece, name)) for name in mapped]
            return keyed, fixed

        def unflatten(fixed: tuple[tuple[str, Any], ...], mapped: Any) -> Any:
            piece = object.__new__(cls)
            values = iter(mapped)
            functions = dict(fixed)
            for name in names:
                value = functions[name] if name in functions else next(values)
                object.__setattr__(piece, name, value)
            return piece

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)

    def replace(self: Self, **changes: Any) -> Self:
        """A copy with other values in some fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]


def _is_function(value: Any) -> bool:
    """Whether a value is a function, and not a pytree that can be called."""
    return callable(value) and jax.tree_util.all_leaves([value])
