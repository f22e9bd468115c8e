"""Bringing the next kernel's weight into the last-level cache while this one ends.

Between two kernels of a decode step the memory idles: the last programs of one finish, the next
one starts. Prefetches fill that time, and the next kernel then finds its first rows in the cache.
"""

from __future__ import annotations

import triton
import triton.language as tl

LINE = tl.constexpr(128)
"""Bytes of a cache line."""
GROUP = tl.constexpr(128)
"""Lines that a program prefetches at once."""
GROUP_BYTES = 128 * 128
"""Bytes of a group, for the host."""


@triton.jit
def prefetch_group(array, group):
    """Asks for one GROUP of cache lines of `array`."""
    itemsize: tl.constexpr = array.dtype.element_ty.primitive_bitwidth // 8
    line = group * GROUP + tl.arange(0, GROUP)
    address = (array + line.to(tl.int64) * (LINE // itemsize)).to(tl.int64)
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [address],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
