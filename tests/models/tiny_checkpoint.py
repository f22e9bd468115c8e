"""A whole tiny checkpoint: random Llama weights and a byte-level tokenizer of fewer tokens."""

from __future__ import annotations

from pathlib import Path

from models.tiny_models import CASES, tiny_weights, write_folder
from models.tiny_tokenizers import byte_level

VOCAB = 448
"""Rows of the embedding; the tokenizer has fewer, as in published checkpoints."""


def write_checkpoint(folder: Path, seed: int = 0) -> int:
    """Writes `config.json`, weights and `tokenizer.json`; gives the tokenizer's vocabulary size."""
    tokenizer = byte_level()
    fields = {
        **CASES["llama2_mha"],
        "vocab_size": VOCAB,
        "bos_token_id": None,
        "eos_token_id": tokenizer.token_to_id("<|end|>"),
    }
    write_folder(folder, fields, tiny_weights(fields, seed))
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer.get_vocab_size()
