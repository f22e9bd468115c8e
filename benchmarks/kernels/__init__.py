"""Attention kernels against their floors and their peers."""
