"""`dendrite info`: what the program finds on this machine, and what is missing."""

from __future__ import annotations

import platform
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from dendrite_jax.cli.common import json_option, print_json
from dendrite_jax.cli.provenance import provenance, version_of, versions

_OPTIONAL = {
    "jax-triton": "GPU kernels",
    "huggingface-hub": "models named by hub id",
    "optax": "training the embedded model",
    "transformers": "comparisons in `dendrite bench`",
}


@click.command()
@json_option
def info(as_json: bool) -> None:
    """Say which devices, kernels, versions and memory there are, and what is missing.

    \b
    Examples:
      dendrite info
      dendrite info --json
    """
    facts = collect()
    if as_json:
        print_json({**facts, **provenance()})
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(f"[bold]{name}[/bold]", _readable(value))
    Console().print(table)


def collect() -> dict[str, Any]:
    """The facts, as JSON values."""
    import jax

    from dendrite_jax.cache.sizing import free_bytes
    from dendrite_jax.serving.compilation import compilation_cache_folder

    cache = compilation_cache_folder()
    return {
        "version": version_of("dendrite-jax"),
        "python": platform.python_version(),
        "packages": versions(),
        "devices": [
            {
                "platform": device.platform,
                "kind": device.device_kind,
                "free_bytes": free_bytes(device),
            }
            for device in jax.devices()
        ],
        "kernels": _kernels(),
        "compilation_cache": str(cache) if cache else None,
        "missing": {
            name: purpose for name, purpose in _OPTIONAL.items() if version_of(name) is None
        },
    }


def _kernels() -> str:
    """The implementation that kernels have here, or why there is none."""
    from dendrite_jax.kernels.dispatch import UnsupportedError, choose_implementation
    from dendrite_jax.kernels.policy import DEFAULT_POLICY

    try:
        return choose_implementation(DEFAULT_POLICY)
    except UnsupportedError as error:
        return f"none: {error}"


def _readable(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_readable(item)}" for key, item in value.items()) or "nothing"
    if isinstance(value, list):
        return "\n".join(
            f"{item['platform']} ({item['kind']}), {item['free_bytes'] / 2**30:.1f} GiB free"
            for item in value
        )
    return "none" if value is None else str(value)
