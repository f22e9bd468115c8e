"""The dataclass pytrees of this package, which print as one line of shapes."""

from __future__ import annotations

from typing import Any

from flax import struct

from dendrite_jax.kernels.describe import describe


class ArrayStruct(struct.PyTreeNode):
    """A `flax.struct.PyTreeNode` whose repr tells shapes and dtypes, not the arrays' contents."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(repr=False, **options)

    def __repr__(self) -> str:
        return describe(self)
