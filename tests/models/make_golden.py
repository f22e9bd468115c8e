"""Makes the golden files of `parity_cases` from transformers: `python tests/models/make_golden.py`.

Needs torch and transformers. For each case the first seed is taken at which greedy decoding is
unambiguous: every choice leads by `MIN_LEAD`, far more than two float32 implementations differ by
(a few 1e-5 on logits of this size). Names of cases as arguments remake only those.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import hf_oracle
from models.parity_cases import NAMES, STEPS, Golden, model_folder, save_golden
from models.tiny_models import CASES, PROMPT_LENGTHS, prompts

MIN_LEAD = 1e-3
NUM_COLUMNS = 8
MAX_SEEDS = 300


def make_case(name: str) -> str:
    """Writes the golden file of a case; a line that sums it up."""
    vocab_size = CASES[name]["vocab_size"]
    columns = np.linspace(0, vocab_size - 1, NUM_COLUMNS).astype(int)
    for seed in range(MAX_SEEDS):
        with model_folder(name, seed) as folder:
            model = hf_oracle.load(folder)
        golden, lead = compute_golden(model, prompts(vocab_size, seed), columns)
        if lead >= MIN_LEAD:
            size = save_golden(name, seed, golden).stat().st_size
            distinct = len(np.unique(golden.greedy))
            return f"{name}: seed {seed}, lead {lead:.1e}, {distinct} tokens occur, {size} bytes"
    raise SystemExit(f"{name}: below {MAX_SEEDS}, no seed has a lead of {MIN_LEAD} everywhere")


def compute_golden(
    model: Any, texts: list[np.ndarray], columns: np.ndarray
) -> tuple[Golden, float]:
    """What `model` says of the prompts of a parity case.

    Also returns the smallest lead that any greedy choice has over the next best logit.
    """
    tokens = np.zeros((len(texts), STEPS + 1), np.uint8)
    golden = Golden(tokens, columns.astype(np.uint8), [], [])
    smallest_lead = np.inf
    for first, length in enumerate(PROMPT_LENGTHS):
        rows = range(first, len(texts), len(PROMPT_LENGTHS))
        tokens[rows], values = hf_oracle.greedy(
            model, np.stack([texts[row] for row in rows]), STEPS
        )
        ranked = np.sort(values[:, length - 1 :], axis=-1)
        smallest_lead = min(smallest_lead, float(np.min(ranked[..., -1] - ranked[..., -2])))
        golden.logits.append(values[0][:, columns])
        total = np.logaddexp.reduce(values[0].astype(np.float64), axis=-1)
        golden.logsumexp.append(total.astype(np.float32))
    return golden, smallest_lead


if __name__ == "__main__":
    for case in sys.argv[1:] or NAMES:
        print(make_case(case), flush=True)
