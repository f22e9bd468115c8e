"""The parity cases: tiny models, and what transformers computes for them.

Golden files, written by `make_golden.py`, hold a few columns of the vocabulary, and the log-sum-exp
of all. Where torch and transformers are installed, `live_logits` asks them about any other tokens.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dendrite_jax.models.config import ModelConfig
from dendrite_jax.models.families import read_config
from dendrite_jax.models.pretrained import load_params
from models.tiny_models import (
    CASES,
    PROMPT_LENGTHS,
    digest,
    prompts,
    tiny_weights,
    write_folder,
)

STEPS = 64
TOLERANCE = 1e-4
"""Largest error of a logit, as a share of the root mean square of its position's logits. Float32
implementations differ by up to 2e-5 here; a wrong option of a model differs by 1e-2 or more."""
NAMES = tuple(CASES)
_FOLDER = Path(__file__).with_name("golden")


class Golden(NamedTuple):
    """What transformers says of a case, computed in float32.

    Logits are of the first eight prompts, one of each of `PROMPT_LENGTHS`, at every position of the
    prompt and of its first 64 greedy tokens.
    """

    greedy: np.ndarray  # u8[prompts, STEPS + 1], all prompts; the first token is the prefill's
    columns: np.ndarray  # u8[columns], the vocabulary entries that `logits` has
    logits: list[np.ndarray]  # f32[length + STEPS, columns] per prompt
    logsumexp: list[np.ndarray]  # f32[length + STEPS] per prompt, over the whole vocabulary


class ParityCase(NamedTuple):
    """One tiny model, loaded through the package's own loader."""

    config: ModelConfig
    params: dict[str, Any]
    prompts: list[np.ndarray]  # i32[length] each
    golden: Golden


def load_case(name: str) -> ParityCase:
    """The case `name`: its weights made anew and loaded, and its golden file."""
    seed, golden = load_golden(name)
    with model_folder(name, seed) as folder:
        config = read_config(folder)
        params = load_params(folder, config)
    return ParityCase(config, params, prompts(config.vocab_size, seed), golden)


def assert_parity(
    golden: Golden,
    prompt_logits: Sequence[np.ndarray],
    decode_logits: Sequence[np.ndarray] | np.ndarray,
) -> None:
    """Asserts that logits are those of transformers.

    Args:
      golden: what transformers says.
      prompt_logits: f32[length, vocab] per prompt; prompts past the checked eight are ignored.
      decode_logits: f32[STEPS, vocab] per prompt, after each of its greedy tokens.
    """
    for row, length in enumerate(PROMPT_LENGTHS):
        logits = np.concatenate([prompt_logits[row], decode_logits[row]])
        assert len(logits) == len(golden.logits[row]) == length + STEPS
        scale = root_mean_square(logits)
        error = np.abs(logits[:, golden.columns] - golden.logits[row]).max(axis=-1)
        assert np.max(error / scale) < TOLERANCE
        error = np.abs(np.logaddexp.reduce(logits, axis=-1) - golden.logsumexp[row])
        assert np.max(error / scale) < TOLERANCE


def root_mean_square(logits: np.ndarray) -> np.ndarray:
    """Over the vocabulary, the last axis."""
    return np.sqrt(np.mean(logits**2, axis=-1))


def live_logits(name: str, tokens: np.ndarray) -> np.ndarray:
    """Logits f32[batch, length, vocab] of any `tokens` [batch, length], from transformers."""
    from models import hf_oracle

    seed, _ = load_golden(name)
    with model_folder(name, seed) as folder:
        return hf_oracle.logits(hf_oracle.load(folder), tokens)


@contextmanager
def model_folder(name: str, seed: int) -> Iterator[Path]:
    """A temporary Hugging Face folder with the case `name`."""
    with tempfile.TemporaryDirectory() as folder:
        write_folder(Path(folder), CASES[name], tiny_weights(CASES[name], seed))
        yield Path(folder)


def save_golden(name: str, seed: int, golden: Golden) -> Path:
    """Writes the golden file of a case whose weights have this seed."""
    _FOLDER.mkdir(exist_ok=True)
    path = _FOLDER / f"{name}.npz"
    np.savez_compressed(
        path,
        seed=np.array(seed),
        digest=np.array(digest(tiny_weights(CASES[name], seed))),
        greedy=golden.greedy,
        columns=golden.columns,
        logits=np.concatenate(golden.logits),
        logsumexp=np.concatenate(golden.logsumexp),
    )
    return path


def load_golden(name: str) -> tuple[int, Golden]:
    """The seed of a case's weights and the content of its golden file."""
    with np.load(_FOLDER / f"{name}.npz") as file:
        arrays = dict(file)
    seed = int(arrays["seed"])
    if digest(tiny_weights(CASES[name], seed)) != str(arrays["digest"]):
        raise ValueError(f"{name}: not the weights of its golden file; run make_golden.py again")
    ends = np.cumsum([length + STEPS for length in PROMPT_LENGTHS])[:-1]
    golden = Golden(
        greedy=arrays["greedy"],
        columns=arrays["columns"],
        logits=np.split(arrays["logits"], ends),
        logsumexp=np.split(arrays["logsumexp"], ends),
    )
    return seed, golden
