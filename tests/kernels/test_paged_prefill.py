"""Paged prefill by plain XLA."""

from __future__ import annotations

from kernels.prefill_suite import PagedPrefillSuite


class TestXla(PagedPrefillSuite):
    implementation = "xla"
