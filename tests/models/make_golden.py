"""Makes the golden files of `parity_cases` from transformers: `python tests/models/make_golden.py`.

Needs torch and transformers. For each case the first seed is taken at which greedy decoding is
unambiguous: every choice leads by `MIN_LEAD`, far more than two float32 implementations differ by
(a few 1e-5 on logits of this size). Names of cases as arguments remake only those.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from models import hf_oracle
from models.parity_cases import NAMES, model_folder, save_golden
from models.tiny_models import CASES, prompts

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
        golden, lead = hf_oracle.compute_golden(model, prompts(vocab_size, seed), columns)
        if lead >= MIN_LEAD:
            size = save_golden(name, seed, golden).stat().st_size
            distinct = len(np.unique(golden.greedy))
            return f"{name}: seed {seed}, lead {lead:.1e}, {distinct} tokens occur, {size} bytes"
    raise SystemExit(f"{name}: below {MAX_SEEDS}, no seed has a lead of {MIN_LEAD} everywhere")


if __name__ == "__main__":
    for case in sys.argv[1:] or NAMES:
        print(make_case(case), flush=True)
