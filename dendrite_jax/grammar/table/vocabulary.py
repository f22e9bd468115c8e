"""The byte trie of a tokenizer's vocabulary, built once and cached on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = 0
NO_NODE = -1

# Part of the cache file's name: raise it when the layout of the arrays changes.
_CACHE_VERSION = 1
_FIELDS = ("parent", "byte", "level_start", "token_node")


@dataclasses.dataclass(frozen=True, eq=False)
class VocabularyTrie:
    """All tokens' bytes as a trie; node 0 is the root and nodes are ordered by depth.

    Attributes:
        parent: i32[nodes].
        byte: u8[nodes], the byte on the edge from the parent; 0 for the root.
        level_start: i32[depths + 1]; nodes level_start[d] … level_start[d + 1] − 1 have depth d.
        token_node: i32[vocabulary], the node where a token's bytes end, NO_NODE for tokens
            without bytes.
    """

    parent: NDArray[np.int32]
    byte: NDArray[np.uint8]
    level_start: NDArray[np.int32]
    token_node: NDArray[np.int32]

    @property
    def nodes(self) -> int:
        """The number of nodes, the root included."""
        return len(self.parent)


def build_trie(token_bytes: Sequence[bytes | None]) -> VocabularyTrie:
    """Builds the trie level by level; None and empty tokens get no node."""
    lengths = np.array([len(data or b"") for data in token_bytes], np.int64)
    joined = np.frombuffer(b"".join(data or b"" for data in token_bytes), np.uint8)
    offset = np.cumsum(lengths) - lengths
    token_node = np.where(lengths > 0, ROOT, NO_NODE).astype(np.int32)
    parents, edge_bytes = [np.zeros(1, np.int32)], [np.zeros(1, np.uint8)]
    starts = [0, 1]
    open_tokens = np.flatnonzero(lengths)
    for depth in range(int(lengths.max(initial=0))):
        open_tokens = open_tokens[lengths[open_tokens] > depth]
        next_byte = joined[offset[open_tokens] + depth]
        edges, inverse = np.unique(
            token_node[open_tokens].astype(np.int64) * 256 + next_byte, return_inverse=True
        )
        token_node[open_tokens] = starts[-1] + inverse.reshape(-1)
        parents.append((edges // 256).astype(np.int32))
        edge_bytes.append((edges % 256).astype(np.uint8))
        starts.append(starts[-1] + len(edges))
    return VocabularyTrie(
        np.concatenate(parents),
        np.concatenate(edge_bytes),
        np.array(starts, np.int32),
        token_node,
    )


def default_cache_dir() -> Path:
    """Where tries are cached unless the caller says otherwise."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "dendrite-jax" / "vocabulary"


def load_or_build_trie(
    token_bytes: Sequence[bytes | None], cache_dir: Path | None
) -> VocabularyTrie:
    """The trie from the cache directory, or built and put there; None caches nothing.

    A cache that cannot be read or written is not an error: the trie is built.
    """
    if cache_dir is None:
        return build_trie(token_bytes)
    path = cache_dir / f"{vocabulary_digest(token_bytes)}-v{_CACHE_VERSION}.npz"
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return VocabularyTrie(*(arrays[name] for name in _FIELDS))
    except (OSError, EOFError, TypeError, ValueError, KeyError, zipfile.BadZipFile):
        trie = build_trie(token_bytes)
    # A read-only home directory costs time, not correctness.
    with contextlib.suppress(OSError):
        _write_atomically(path, trie)
    return trie


def vocabulary_digest(token_bytes: Sequence[bytes | None]) -> str:
    """A name for a vocabulary: equal for equal lists of token bytes only."""
    lengths = np.array([-1 if data is None else len(data) for data in token_bytes], "<i4")
    digest = hashlib.sha256(lengths.tobytes())
    digest.update(b"".join(data or b"" for data in token_bytes))
    return digest.hexdigest()[:32]


def _write_atomically(path: Path, trie: VocabularyTrie) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        try:
            np.savez(file, **{name: getattr(trie, name) for name in _FIELDS})
            file.close()
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise
