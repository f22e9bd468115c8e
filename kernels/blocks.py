"""How the pool is cut into blocks."""

BLOCK_SIZE = 16
"""Tokens in a block, unless a cache is made with another size; the Triton kernels read this one."""
