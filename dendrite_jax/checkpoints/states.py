"""A state, or any pytree that holds one, on disk and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

T = TypeVar("T")


def save(path: str | Path, tree: T) -> None:
    """Writes a pytree of arrays, such as an `engine.State` or a search's loop, to a new folder.

    Raises:
      ValueError: the folder exists already.
    """
    with _checkpointer() as checkpointer:
        checkpointer.save(Path(path).absolute(), tree)


def restore(path: str | Path, like: T) -> T:
    """Reads what `save` wrote.

    Args:
      path: the folder.
      like: a pytree of the same structure, shapes and dtypes; its values are not read, so
        `jax.eval_shape` of what made the original will do. A leaf with a sharding is read straight
        to the devices of that one, whatever devices it was saved on; one without goes to the
        default device.

    Raises:
      ValueError: the folder is missing, or holds another structure or other shapes.
    """
    folder = Path(path).absolute()
    if not folder.is_dir():
        raise ValueError(f"checkpoint: no folder {folder}")
    default = SingleDeviceSharding(jnp.zeros(()).device)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None) or default
        ),
        like,
    )
    with _checkpointer() as checkpointer:
        saved = _layout(checkpointer.metadata(folder).item_metadata.tree)
        _check_layout(saved, _layout(shapes))
        return checkpointer.restore(folder, shapes)


def _checkpointer() -> Any:
    import orbax.checkpoint as ocp  # here: it takes a sixth of what importing the library takes

    return ocp.StandardCheckpointer()


def _layout(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each leaf, by its path."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): (tuple(leaf.shape), str(leaf.dtype))
        for path, leaf in leaves
    }


def _check_layout(saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises ValueError for the first leaf that is not there or is of another shape or dtype."""
    for name in sorted(saved.keys() | wanted.keys()):
        if saved.get(name) != wanted.get(name):
            raise ValueError(
                f"checkpoint: {name} was saved with shape and dtype {saved.get(name)}, "
                f"and {wanted.get(name)} is wanted"
            )
