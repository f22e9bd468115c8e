"""Triton kernel of the block copy: one program a block and layer."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def copy_kernel(
    k_pool,
    v_pool,
    source,
    destination,
    num_blocks,
    limit,
    SIZE: tl.constexpr,
    CHUNK: tl.constexpr,
):
    """Copies SIZE elements of a block of both pools in place, unless its destination is `limit`
    or more.

    Grid: (copies, layers).

    Operands:
      k_pool, v_pool: [layers, num_blocks, ...], SIZE elements a block.
      source, destination: i32[copies].
    """
    number = tl.program_id(0)
    to = tl.load(destination + number)
    if to < limit:
        first = tl.program_id(1).to(tl.int64) * num_blocks
        read = (first + tl.load(source + number)) * SIZE
        write = (first + to) * SIZE
        for start in range(0, SIZE, CHUNK):
            at = start + tl.arange(0, CHUNK)
            inside = at < SIZE
            k = tl.load(k_pool + read + at, mask=inside)
            v = tl.load(v_pool + read + at, mask=inside)
            tl.store(k_pool + write + at, k, mask=inside)
            tl.store(v_pool + write + at, v, mask=inside)
