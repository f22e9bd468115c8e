"""A checkpoint, ready to use: the decoder and its tokenizer."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from dendrite_jax.checkpoints.hub import resolve
from dendrite_jax.checkpoints.safetensors_file import Checkpoint, WeightsError, open_checkpoint
from dendrite_jax.checkpoints.weights import Param, Placement, read_params
from dendrite_jax.kernels.policy import Implementation, KernelPolicy
from dendrite_jax.models.config import ModelConfig
from dendrite_jax.models.decoder import Decoder, Params
from dendrite_jax.models.families import param_layout, read_config
from dendrite_jax.models.families.layout import EMBEDDING, LAYERS, OUTPUT, build_params
from dendrite_jax.text.tokenizer import Tokenizer

_FREQUENCIES = ".rotary_emb.inv_freq"
"""Of a layer's rotary embedding, which old checkpoints keep and `config.json` determines."""
_COMPARED_ROWS = 4096
_NAMED = 8
"""Most tensors that a warning names."""


class CheckpointWarning(UserWarning):
    """A checkpoint that was loaded, but is not quite what its configuration says."""


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
        dtype: of the weights and of the computation; None keeps the dtype of each weight and
            computes in that of the embedding.
        progress: called with the bytes read so far and in all.
        implementation: kernels of decode, see `KernelPolicy`.

    Raises:
        ValueError: the model is not found, not supported or damaged; the message names what is.

    Warns:
        CheckpointWarning: as `load_params`.
    """
    folder = resolve(model)
    config = read_config(folder)
    tokenizer = Tokenizer.from_file(folder)
    params = load_params(folder, config, dtype, progress=progress)
    config = replace(
        config,
        tie_word_embeddings="lm_head" not in params,
        compute_dtype=jnp.dtype(dtype or params["embed"].dtype).name,
    )
    return Pretrained(Decoder(params, config, KernelPolicy(implementation)), tokenizer)


def load_params(
    folder: str | Path,
    config: ModelConfig,
    dtype: DTypeLike | None = None,
    *,
    placement: Placement | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Params:
    """Loads the weights of a Hugging Face model folder.

    Args:
      folder: holds `model.safetensors`, or its shards and `model.safetensors.index.json`.
      config: the configuration of the same folder.
      dtype, placement, progress: see `read_params`.

    Returns:
      The parameters in the layout of `Params`. Like transformers, a tied model whose checkpoint has
      an output matrix of other values than the embedding's gets that matrix as its lm_head.

    Raises:
      WeightsError: a tensor is missing, has the wrong shape or a dtype other than float32,
        float16 and bfloat16, is of a layer but not of this configuration, or a file is damaged;
        raised before anything is put on a device.
      ValueError: `dtype` is not a floating dtype.

    Warns:
      CheckpointWarning: names the tensors that the model does not need, or says that a tied
        model's output matrix is used.
    """
    checkpoint = open_checkpoint(Path(folder))
    layout = param_layout(config)
    if config.tie_word_embeddings and OUTPUT in checkpoint:
        layout = _with_output(checkpoint, layout, config)
    _check_unused(checkpoint, layout, config)
    arrays = read_params(checkpoint, layout, dtype, placement=placement, progress=progress)
    return build_params(config, zip(layout, arrays, strict=True))


def _with_output(
    checkpoint: Checkpoint, layout: tuple[Param, ...], config: ModelConfig
) -> tuple[Param, ...]:
    """The layout of a tied model whose checkpoint has an output matrix all the same."""
    if EMBEDDING not in checkpoint:
        renamed = tuple(replace(part, name=OUTPUT) for part in layout[0].parts)
        return (replace(layout[0], parts=renamed), *layout[1:])
    untied = param_layout(replace(config, tie_word_embeddings=False))
    parts = {part.name: part.shape for param in untied for part in param.parts}
    embedding, output = (checkpoint.tensor(name, parts[name]) for name in (EMBEDDING, OUTPUT))
    starts = range(0, len(embedding), _COMPARED_ROWS)
    pieces = [slice(start, start + _COMPARED_ROWS) for start in starts]
    if all(np.array_equal(embedding[piece], output[piece]) for piece in pieces):
        return layout
    warnings.warn(
        f"{checkpoint.folder}: tie_word_embeddings is true, but {OUTPUT} differs from {EMBEDDING}: "
        "both are used",
        CheckpointWarning,
        stacklevel=3,
    )
    return untied


def _check_unused(checkpoint: Checkpoint, layout: tuple[Param, ...], config: ModelConfig) -> None:
    """Refuses tensors of layers that the configuration lacks, and names others in a warning."""
    needed = {part.name for param in layout for part in param.parts}
    unused = checkpoint.names() - needed
    if config.tie_word_embeddings and OUTPUT in checkpoint:
        unused.discard(OUTPUT)  # compared
    wrong = [n for n in unused if n.startswith(LAYERS) and not n.endswith(_FREQUENCIES)]
    wrong += [n for n in unused if _layer_of(n) >= config.num_layers and n not in wrong]
    if wrong:
        first = min(wrong)
        place = checkpoint.files[first].path if first in checkpoint else checkpoint.folder
        raise WeightsError(
            f"{place}: tensor {first} does not belong to a {config.architecture} of "
            f"{config.num_layers} layers with this configuration ({len(wrong)} such tensors)"
        )
    if unused:
        named = sorted(unused)[:_NAMED] + ["…"] * (len(unused) > _NAMED)
        warnings.warn(
            f"{checkpoint.folder}: left out {len(unused)} that a {config.architecture} does not "
            f"need: {', '.join(named)}",
            CheckpointWarning,
            stacklevel=3,
        )


def _layer_of(name: str) -> int:
    """The number of the layer that a tensor is of, −1 for none."""
    match = re.match(re.escape(LAYERS) + r"(\d+)\.", name)
    return int(match[1]) if match else -1
