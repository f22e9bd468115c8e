"""Hugging Face transformers as the oracle, on the CPU; needs torch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
# The models are too small for threads to help, and many would wait for each other.
torch.set_num_threads(1)


def load(folder: Path) -> Any:
    """The model of a folder in float32, refusing a checkpoint that does not fit it exactly."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    mismatches = {kind: names for kind, names in report.items() if names}
    if mismatches:
        raise ValueError(f"{folder}: transformers reports {mismatches}")
    return model.eval()


@torch.no_grad()
def logits(model: Any, tokens: np.ndarray) -> np.ndarray:
    """f32[batch, length, vocab] of every position of `tokens` [batch, length]."""
    return model(torch.from_numpy(tokens.astype(np.int64)), use_cache=False).logits.numpy()


@torch.no_grad()
def greedy(model: Any, prompts: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Prefill and greedy decoding with transformers' own cache.

    Args:
      model: from `load`.
      prompts: [batch, length].
      steps: decode steps after the prefill.

    Returns:
      i64[batch, steps + 1] tokens, the first of them from the prefill, and the f32 logits
      [batch, length + steps, vocab] of the prompt and of every token but the last.
    """
    cache = DynamicCache(config=model.config)
    fed = torch.from_numpy(prompts.astype(np.int64))
    tokens, rows = [], []
    for _ in range(steps + 1):
        out = model(fed, past_key_values=cache, use_cache=True).logits
        fed = out[:, -1:].argmax(dim=-1)
        tokens.append(fed.numpy())
        rows.append(out.numpy())
    return np.concatenate(tokens, axis=1), np.concatenate(rows, axis=1)
