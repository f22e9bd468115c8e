"""The options that decode loops are compiled with."""

from __future__ import annotations

from dendrite_jax.serving.compilation import LOOP_OPTIONS

# Each was captured in `benchmarks.gpu_checks`, whose searches and generations, called five times on
# changing inputs, equal those without command buffers. With WHILE they do not.
KNOWN_TO_BE_SAFE = {
    "FUSION",
    "CUBLAS",
    "CUDNN",
    "CUSTOM_CALL",
    "CONDITIONAL",
    "DYNAMIC_SLICE_FUSION",
}


def test_command_buffers_hold_only_what_was_checked_on_a_gpu() -> None:
    captured = str(LOOP_OPTIONS["xla_gpu_enable_command_buffer"]).split(",")
    assert set(captured) <= KNOWN_TO_BE_SAFE


def test_no_other_option_changes_what_is_computed() -> None:
    assert LOOP_OPTIONS.keys() == {
        "xla_gpu_enable_command_buffer",
        "xla_gpu_graph_min_graph_size",
        "xla_gpu_enable_triton_gemm",
    }
