"""From the name of a model to a local folder."""

from __future__ import annotations

import re
from pathlib import Path

from dendrite_jax.checkpoints import hf_files

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# Repositories may hold the same weights in other formats too; only these files are fetched.
_FILES = [
    hf_files.CONFIG,
    hf_files.GENERATION_CONFIG,
    hf_files.TOKENIZER,
    hf_files.TOKENIZER_CONFIG,
    hf_files.WEIGHTS,
    hf_files.WEIGHTS_INDEX,
    "model-*.safetensors",
]


class ModelNotFoundError(ValueError):
    """A model name that leads to no folder with a model."""


def resolve(model: str | Path, revision: str | None = None) -> Path:
    """The local folder of a model.

    Args:
      model: a folder that holds a `config.json`, or a Hugging Face hub id such as
        `Qwen/Qwen3-0.6B`, which is downloaded (or found in the cache of the hub's client).
      revision: branch, tag or commit on the hub; unused for a folder.

    Raises:
      ModelNotFoundError: no such folder or hub id, or the hub's client is not installed.
    """
    if not str(model).strip():
        raise ModelNotFoundError(
            f"model is {str(model)!r}; it must be a folder or a hub id such as 'owner/name'"
        )
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / hf_files.CONFIG).is_file():
            raise ModelNotFoundError(f"{folder}: the folder has no {hf_files.CONFIG}")
        return folder
    if folder.exists():
        raise ModelNotFoundError(f"{folder}: expected a model folder, found a file")
    if not _HUB_ID.fullmatch(str(model)):
        raise ModelNotFoundError(f"{model}: neither a folder nor a hub id such as 'owner/name'")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as exc:
        raise ModelNotFoundError(
            f"{model}: no such folder; to fetch it from the hub, install huggingface_hub"
        ) from exc
    try:
        return Path(snapshot_download(str(model), revision=revision, allow_patterns=_FILES))
    except Exception as exc:  # the errors of the hub's client have no common base
        raise ModelNotFoundError(f"{model}: no such folder, and the hub said: {exc}") from exc
