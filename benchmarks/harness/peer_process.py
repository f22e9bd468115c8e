"""Running a peer in a process of its own, which holds device memory only while it measures.

Call it before this process touches the device: JAX takes most of a GPU's memory when it starts.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any


def run_peer(
    module: str, *arguments: Any, needs: tuple[str, ...] = ("torch", "transformers")
) -> Any:
    """Runs `dendrite_jax.benchmarks.<module>`, which answers with `answer`.

    Args:
      module: its name.
      arguments: JSON values for it.
      needs: packages that it imports.

    Returns:
      What it answered, or None where one of those packages isn't installed.

    Raises:
      RuntimeError: the process failed; the message ends with its last words.
    """
    if not all(importlib.util.find_spec(name) for name in needs):
        return None
    done = subprocess.run(
        [sys.executable, "-m", f"dendrite_jax.benchmarks.{module}", json.dumps(arguments)],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{module} failed: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def arguments() -> Any:
    """In the peer's process: the arguments that it was given."""
    return json.loads(sys.argv[1])


def answer(value: Any) -> None:
    """In the peer's process: gives the result back."""
    print(json.dumps(value))
