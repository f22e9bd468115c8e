"""Decode speed of transformers on the same shape, in a process of its own."""

from __future__ import annotations

import statistics
import time
from typing import Any

from dendrite_jax.benchmarks.harness.peer_process import answer, arguments, run_peer
from dendrite_jax.benchmarks.harness.shapes import SHAPES


def measure(
    shape: str | None, context: int, new_tokens: int, batch_sizes: tuple[int, ...]
) -> dict[str, Any] | None:
    """Runs the peer; {"environment", "rows": {batch: times or None}}, or None if not installed.

    A batch that does not fit the device's memory is None in its row.
    """
    return run_peer("decode.peer", shape, context, new_tokens, batch_sizes)


def _run(
    shape: str | None, context: int, new_tokens: int, batch_sizes: list[int]
) -> dict[str, Any]:
    import torch
    import transformers

    on_gpu = torch.cuda.is_available()
    model = random_peer(shape or ("llama-3-8b" if on_gpu else "small"), on_gpu)
    rows: dict[int, Any] = {}
    for batch in batch_sizes:
        try:
            rows[batch] = _decode(model, batch, context, new_tokens)
        except torch.OutOfMemoryError:
            rows[batch] = None
    return {
        "environment": {"torch": torch.__version__, "transformers": transformers.__version__},
        "rows": rows,
    }


def random_peer(shape: str, on_gpu: bool) -> Any:
    """A transformers model of a named shape with random weights; bfloat16 on a GPU."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    ours = SHAPES[shape]
    layer = ours.layers[0]  # all are alike
    config = LlamaConfig(
        vocab_size=ours.vocab_size,
        hidden_size=ours.hidden_size,
        intermediate_size=layer.mlp.width,
        num_hidden_layers=ours.num_layers,
        num_attention_heads=layer.attention.heads,
        num_key_value_heads=layer.attention.kv_heads,
        head_dim=layer.attention.head_dim,
        max_position_embeddings=ours.max_position,
        tie_word_embeddings=ours.tie_word_embeddings,
    )
    torch.set_default_dtype(torch.bfloat16 if on_gpu else torch.float32)
    with torch.device("cuda" if on_gpu else "cpu"):
        return LlamaForCausalLM(config).eval()


def _decode(model: Any, batch: int, context: int, new_tokens: int) -> dict[str, float]:
    """Milliseconds of the first token and the median of a later one, of a second run."""
    import torch
    from transformers import DynamicCache

    prompt = torch.randint(model.config.vocab_size, (batch, context), device=model.device)
    first: list[float] = []
    later: list[float] = []
    with torch.inference_mode():
        for _ in range(2):
            cache, tokens = DynamicCache(config=model.config), prompt
            for place in range(new_tokens + 1):
                start = time.perf_counter()
                out = model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
                tokens = out.logits[:, -1:].argmax(-1)
                if tokens.is_cuda:
                    torch.cuda.synchronize()
                (later if place else first).append(1e3 * (time.perf_counter() - start))
    return {"first_token_ms": first[-1], "token_ms": statistics.median(later[new_tokens:])}


if __name__ == "__main__":
    answer(_run(*arguments()))
