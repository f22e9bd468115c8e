"""Hugging Face transformers as the oracle, on the CPU; needs torch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.utils.logging import disable_progress_bar

from models.parity_cases import STEPS, Golden
from models.tiny_models import PROMPT_LENGTHS

disable_progress_bar()


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


def compute_golden(
    model: Any, prompts: list[np.ndarray], columns: np.ndarray
) -> tuple[Golden, float]:
    """What `model` says of the prompts of a parity case.

    Also returns the smallest lead that any greedy choice has over the next best logit.
    """
    tokens = np.zeros((len(prompts), STEPS + 1), np.uint8)
    golden = Golden(tokens, columns.astype(np.uint8), [], [])
    smallest_lead = np.inf
    for first, length in enumerate(PROMPT_LENGTHS):
        rows = range(first, len(prompts), len(PROMPT_LENGTHS))
        tokens[rows], values = greedy(model, np.stack([prompts[row] for row in rows]), STEPS)
        ranked = np.sort(values[:, length - 1 :], axis=-1)
        smallest_lead = min(smallest_lead, float(np.min(ranked[..., -1] - ranked[..., -2])))
        golden.logits.append(values[0][:, columns])
        golden.logsumexp.append(logsumexp(values[0]).astype(np.float32))
    return golden, smallest_lead


def logsumexp(values: np.ndarray) -> np.ndarray:
    """Over the last axis, f64."""
    peak = values.max(axis=-1, keepdims=True).astype(np.float64)
    return peak[..., 0] + np.log(np.exp(values - peak).sum(axis=-1))
