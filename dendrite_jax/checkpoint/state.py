"""A state, or any pytree that holds one, on disk and back."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import jax
import orbax.checkpoint as ocp

T = TypeVar("T")


def save(path: str | Path, tree: T) -> None:
    """Writes a pytree of arrays, such as an `engine.State` or a search's loop, to a new folder.

    Raises:
      ValueError: the folder exists already.
    """
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(path).absolute(), tree)


def restore(path: str | Path, like: T) -> T:
    """Reads what `save` wrote.

    Args:
      path: the folder.
      like: a pytree of the same structure, shapes and dtypes; its values are not read, so
        `jax.eval_shape` of what made the original will do.

    Raises:
      ValueError: the folder is missing, or holds another structure or other shapes.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise ValueError(f"checkpoint: no folder {folder}")
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(folder, shapes)
