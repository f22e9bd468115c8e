"""What writes to the pool, by the interpreted Triton kernels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from dendrite_jax.kernels.copy_blocks import gpu as copy_gpu
from dendrite_jax.kernels.dispatch import UnsupportedError
from dendrite_jax.kernels.rope_append import gpu as rope_gpu
from kernels import interpreter
from kernels.copy_suite import DESTINATION, SOURCE, CopyBlocksSuite
from kernels.copy_suite import pools as copy_pools
from kernels.interpreter import interpreted  # noqa: F401
from kernels.rope_suite import BLOCK, OFFSET, RopeAppendSuite, mapped_axes, operands, rotated


class TestCopyBlocksTriton(CopyBlocksSuite):
    implementation = "triton"


class TestRopeAppendTriton(RopeAppendSuite):
    implementation = "triton"


def test_the_pools_alias_the_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter copies what it is given; on a GPU these aliases keep pools in place."""
    aliased: list[tuple[Any, Any]] = []

    def launch(*operands: Any, aliases: dict[int, int], **options: Any) -> Any:
        shapes = jax.tree.leaves(options["out_type"])
        aliased.extend((operands[given], shapes[made]) for given, made in aliases.items())
        return interpreter.launch(*operands, aliases=aliases, **options)

    for module in (copy_gpu, rope_gpu):
        monkeypatch.setattr(module, "launch", launch)
    k, v = copy_pools()
    copy_gpu.copy_blocks(k, v, jnp.asarray(SOURCE), jnp.asarray(DESTINATION))
    arrays = operands(False)
    rope_gpu.rope_append(
        *arrays[:4],
        1,
        jnp.asarray(BLOCK),
        jnp.asarray(OFFSET),
        q_norm=None,
        k_norm=None,
        eps=1e-5,
    )
    assert [given.shape for given, _ in aliased] == [pool.shape for pool in (k, v, *arrays[2:4])]
    assert all((given.shape, given.dtype) == (made.shape, made.dtype) for given, made in aliased)


def test_norms_that_differ_between_problems_are_refused() -> None:
    arrays = operands(True)
    axes = mapped_axes(norms=(0, 0))
    both = arrays._replace(norms=jax.tree.map(lambda norm: jnp.stack([norm, norm]), arrays.norms))
    with pytest.raises(UnsupportedError, match="one q_norm and k_norm for all"):
        jax.vmap(rotated, (axes, None, None, None))(both, BLOCK, OFFSET, "triton")
