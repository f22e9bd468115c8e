"""Mutations of the models and of the products that they are made of."""

from __future__ import annotations

from mutants.mutant import Mutant

_HF_CONFIG = "dendrite_jax/models/families/hf_config.py"
_LAYOUT = "dendrite_jax/models/families/layout.py"
_FUSED = ("models/test_weights.py::test_parameters_are_the_tensors_fused",)


def _logits(case: str) -> tuple[str, ...]:
    """The parity test of one tiny model."""
    return (f"models/test_parity.py::test_logits_equal_transformers_in_prefill_and_decode[{case}]",)


MUTANTS = (
    Mutant(
        "eps is added outside the root of an RMS norm",
        "kernels/linear/reference.py",
        "jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + eps)",
        "(1 / (jnp.sqrt(jnp.mean(wide * wide, axis=-1, keepdims=True)) + eps))",
        ("kernels/test_linear.py::TestXla::test_matches_float64", *_logits("llama_odd_sizes")),
    ),
    Mutant(
        "gate and up are swapped in SwiGLU",
        "kernels/linear/reference.py",
        "jax.nn.silu(gate) * up",
        "gate * jax.nn.silu(up)",
        ("kernels/test_linear.py::TestXla::test_matches_float64",),
    ),
    Mutant(
        "the perceptron has the norm of the attention",
        "dendrite_jax/models/fusion.py",
        'Norm(weights["post_norm"], spec.norm_eps)',
        'Norm(weights["input_norm"], spec.norm_eps)',
        _logits("llama31_rope"),
    ),
    Mutant(
        "queries have the norm of the keys",
        "dendrite_jax/models/attention.py",
        "q_norm=layer.q_norm,",
        "q_norm=layer.k_norm,",
        _logits("qwen3_gqa4_window_tied"),
    ),
    Mutant(
        "rope scaling slows high frequencies",
        "dendrite_jax/models/rope.py",
        "(1 - blend) * frequency / scaling.factor + blend * frequency",
        "blend * frequency / scaling.factor + (1 - blend) * frequency",
        _logits("llama31_rope"),
    ),
    Mutant(
        "a rotary embedding turns all positions by half",
        "dendrite_jax/models/rope.py",
        "np.arange(0, head_dim, 2, dtype=np.float64) / head_dim",
        "np.arange(0, head_dim, 2, dtype=np.float64) / (2 * head_dim)",
        _logits("llama31_rope"),
    ),
    Mutant(
        "layers with a window begin one layer late",
        _HF_CONFIG,
        "window is not None and layer >= first",
        "window is not None and layer > first",
        ("models/test_hf_config.py::test_qwen2_windows",),
    ),
    Mutant(
        "the base of the rotary embedding is not read",
        _HF_CONFIG,
        'theta = self.positive_float("rope_theta")',
        "theta = _DEFAULT_ROPE_THETA",
        ("models/test_hf_config.py::test_llama_31",),
    ),
    Mutant(
        "a tied model reads an output matrix",
        _LAYOUT,
        "if not config.tie_word_embeddings:",
        "if True:",
        ("models/test_weights.py::test_tied_and_qk_norm_layout",),
    ),
    Mutant(
        "keys stand before queries in the fused matrix",
        _LAYOUT,
        'zip("qkv", (q, kv, kv), strict=True)',
        'zip("kqv", (kv, q, kv), strict=True)',
        _FUSED,
    ),
    Mutant(
        "up stands before gate in the fused matrix",
        _LAYOUT,
        'for name in ("gate", "up")]',
        'for name in ("up", "gate")]',
        _FUSED,
    ),
    Mutant(
        "biases of an attention's output are left out",
        "dendrite_jax/models/fusion.py",
        'LastLinear(o, bias["o"],',
        "LastLinear(o, None,",
        _logits("llama_biases"),
    ),
)
