"""Checks and times the kernels on the GPU; prints a table and writes JSON.

python -m dendrite_jax.benchmarks.kernels --out results.json --parts skinny tree
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax

from dendrite_jax.benchmarks import kernel_skinny, kernel_tree


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    device = jax.devices()[0]
    return {"jax": jax.__version__, "device": device.device_kind, "platform": device.platform}


def main(arguments: list[str] | None = None) -> int:
    """Runs the parts named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--parts", nargs="+", default=["skinny", "tree"])
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 16, 64, 256])
    parser.add_argument("--random-trees", type=int, default=20)
    options = parser.parse_args(arguments)
    if jax.default_backend() != "gpu":
        print(f"the kernels run on a GPU; this is {jax.default_backend()}", file=sys.stderr)
        return 2
    results: dict[str, Any] = {"environment": environment()}

    def save(key: str, value: Any, started: float) -> None:
        results[key] = value
        results[f"{key}_seconds"] = time.perf_counter() - started
        print(f"[{key}: {results[f'{key}_seconds']:.0f} s]", flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1))

    if "skinny" in options.parts:
        for rows in options.rows:
            started = time.perf_counter()
            records = kernel_skinny.measure(rows)
            print(kernel_skinny.table(records), flush=True)
            save(f"skinny_{rows}", records, started)
    if "tree" in options.parts:
        started = time.perf_counter()
        checked = kernel_tree.check_random_trees(options.random_trees)
        print(checked, flush=True)
        save("random_trees", checked, started)
        started = time.perf_counter()
        records = kernel_tree.measure()
        print(kernel_tree.table(records), flush=True)
        save("tree", records, started)
    return 0


if __name__ == "__main__":
    sys.exit(main())
