"""Finding the folder of a model; the hub's client is replaced, nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dendrite_jax.checkpoints.hub import ModelNotFoundError, resolve


def test_folder_is_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert resolve(tmp_path) == tmp_path
    assert resolve(str(tmp_path)) == tmp_path


def test_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"the folder has no config\.json"):
        resolve(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelNotFoundError, match="expected a model folder, found a file"):
        resolve(tmp_path / "file")


@pytest.mark.parametrize("name", ["no-such-folder", "a/b/c", "/no/such", "", "owner/na me"])
def test_neither_folder_nor_hub_id(name: str) -> None:
    with pytest.raises(ModelNotFoundError):
        resolve(name)


def test_hub_id_is_fetched_without_duplicate_formats(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repo_id: str, **options: Any) -> str:
        asked.update(options, repo_id=repo_id)
        return str(tmp_path)

    client = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    assert resolve("owner/model-1.5", revision="main") == tmp_path
    assert (asked["repo_id"], asked["revision"]) == ("owner/model-1.5", "main")
    assert "*.safetensors" not in asked["allow_patterns"]
    assert "model-*.safetensors" in asked["allow_patterns"]


def test_absent_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelNotFoundError, match=r"owner/model: .*install huggingface_hub"):
        resolve("owner/model")


def test_refusal_of_the_hub_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(repo_id: str, **options: Any) -> str:
        raise OSError("404 not found")

    client = SimpleNamespace(snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", client)
    with pytest.raises(ModelNotFoundError, match=r"owner/model: .*404 not found"):
        resolve("owner/model")
