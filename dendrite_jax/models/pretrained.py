"""A checkpoint, ready to use: the decoder and its tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from jax.typing import DTypeLike

from dendrite_jax.checkpoints.hub import resolve
from dendrite_jax.kernels.policy import Implementation, KernelPolicy
from dendrite_jax.models.decoder import Decoder
from dendrite_jax.models.hf_config import read_config
from dendrite_jax.models.weights import load_params
from dendrite_jax.text.tokenizer import Tokenizer


class Pretrained(NamedTuple):
    """A model and the tokenizer that it was trained with."""

    model: Decoder
    tokenizer: Tokenizer


def load(
    model: str | Path,
    dtype: DTypeLike | None = None,
    progress: Callable[[int, int], None] | None = None,
    implementation: Implementation | None = None,
) -> Pretrained:
    """Loads a Hugging Face checkpoint onto the default device.

    Args:
        model: a folder, or a hub id (see `hub.resolve`).
        dtype: of the weights and of the computation; None keeps the checkpoint's.
        progress: called with the bytes read so far and in all.
        implementation: kernels of decode, see `KernelPolicy`.

    Raises:
        ValueError: the model is not found, not supported or damaged; the message names what is.
    """
    folder = resolve(model)
    config = read_config(folder)
    tokenizer = Tokenizer.from_file(folder)
    params = load_params(folder, config, dtype, progress=progress)
    return Pretrained(Decoder(params, config, KernelPolicy(implementation)), tokenizer)
