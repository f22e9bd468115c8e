"""The product of few rows at the Llama-3-8B shape: tile sizes, against XLA and the weight's bytes.

python -m dendrite_jax.benchmarks.kernels.linear 1 8 64

The tile sizes in `kernels/linear/shapes.py` were chosen by this table.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dendrite_jax.benchmarks.harness.timing import (
    CACHE_BYTES,
    READ_BANDWIDTH,
    compile_all,
    seconds_per_turn,
)
from dendrite_jax.kernels.linear import Dense, gpu, reference
from dendrite_jax.kernels.linear.shapes import RowBlocks, TileBlocks

PRODUCTS = {
    "qkv": {"outputs": 6144, "depth": 4096},
    "o": {"outputs": 4096, "depth": 4096, "residual": True},
    "gate_up": {"outputs": 14336, "depth": 4096, "swiglu": True},
    "down": {"outputs": 4096, "depth": 14336, "residual": True},
    "lm_head": {"outputs": 128256, "depth": 4096},
}
"""Outputs after the epilogue, depth, and what is fused beside a norm; Llama-3-8B."""

ROW_VARIANTS = [
    RowBlocks(rows=rows, chunk=chunk, unroll=unroll, warps=warps)
    for rows, chunk, unroll, warps in [
        (1, 1024, 4, 4),
        (2, 1024, 4, 4),
        (4, 1024, 4, 4),
        (8, 1024, 1, 4),
        (4, 256, 8, 4),
        (8, 256, 8, 4),
        (16, 256, 4, 4),
        (2, 2048, 2, 4),
        (4, 2048, 2, 8),
        (8, 512, 4, 8),
    ]
]

TILE_VARIANTS = [
    TileBlocks(rows=rows, columns=columns, splits=splits, warps=warps, stages=stages)
    for rows, columns, splits, warps, stages in [
        (64, 128, 1, 4, 3),
        (64, 128, 4, 4, 3),
        (64, 64, 2, 4, 5),
        (128, 64, 1, 8, 4),
        (128, 64, 4, 8, 4),
    ]
]


def _operands(spec: dict[str, Any], rows: int) -> dict[str, Any]:
    """Random operands of one product, with enough copies of the weight to rotate over."""
    outputs, depth = spec["outputs"], spec["depth"]
    shape = (outputs * (2 if spec.get("swiglu") else 1), depth)
    copies = max(2, int(CACHE_BYTES / (2 * shape[0] * depth)) + 1)
    keys = jax.random.split(jax.random.key(0), copies + 3)
    make = jax.jit(
        lambda key, shape, scale: scale * jax.random.normal(key, shape, jnp.bfloat16),
        static_argnums=1,
    )
    residual = bool(spec.get("residual"))
    return {
        "weights": [Dense(make(key, shape, depth**-0.5)) for key in keys[3:]],
        "x": make(keys[0], (rows, depth), 1.0),
        "norm": make(keys[1], (outputs if residual else depth,), 1.0),
        "residual": make(keys[2], (rows, outputs), 1.0) if residual else None,
    }


_Product = Callable[..., tuple[Array, Array | None]]
"""(x, weight, norm, residual, out_dtype) -> the result, and its norm if the kernel made it."""


def _product(spec: dict[str, Any], module: Any, **options: Any) -> _Product:
    """The product of a spec by an implementation's module."""

    def compute(
        x: Array, weight: Dense, norm: Array, residual: Array | None, out_dtype: Any
    ) -> tuple[Array, Array | None]:
        if residual is not None:
            residual = residual.astype(out_dtype)
            return module.residual_linear(
                x, residual, weight, next_norm=norm, eps=1e-5, bias=None, **options
            )
        y = module.linear(
            x,
            weight,
            norm=norm,
            eps=1e-5,
            bias=None,
            swiglu=bool(spec.get("swiglu")),
            out_dtype=jnp.dtype(out_dtype),
            **options,
        )
        return y, None

    return compute


def _body(compute: _Product, spec: dict[str, Any], repeats: int, whole: bool) -> Callable[..., Any]:
    """A turn: `repeats` dependent products over the weights in rotation.

    With `whole` a product takes a result that is wider than its depth.
    """

    def chained(carry: Array, x: Array, norm: Array, weights: list[Dense]) -> Array:
        """XLA would move a product that does not depend on the carry out of the loop."""
        operand = x
        for index in range(repeats):
            carry, normed = compute(
                operand, weights[index % len(weights)], norm, carry, jnp.bfloat16
            )
            operand = x if normed is None else x + normed[:, :1] * 1e-6
        return carry

    def replaced(carry: Array, x: Array, norm: Array, weights: list[Dense]) -> Array:
        """One row starts with the columns that the kernel reads; a slice would be a launch."""
        for index in range(repeats):
            operand = carry if whole else carry[:, : spec["depth"]]
            carry, _ = compute(operand, weights[index % len(weights)], norm, None, jnp.bfloat16)
        return carry

    return chained if spec.get("residual") else replaced


def _relative_error(compute: _Product, data: dict[str, Any], want: Array) -> float:
    """Norm of the error over the norm, with a float32 result."""
    got, _ = jax.jit(lambda *operands: compute(*operands, jnp.float32))(
        data["x"], data["weights"][0], data["norm"], data["residual"]
    )
    return float(jnp.linalg.norm(got - want) / jnp.linalg.norm(want))


def _precise(spec: dict[str, Any], data: dict[str, Any]) -> Array:
    """The product in float32 arithmetic at full precision."""
    compute = _product(spec, reference)
    x, weight = data["x"].astype(jnp.float32), data["weights"][0]
    with jax.default_matmul_precision("highest"):
        got, _ = jax.jit(lambda *operands: compute(*operands, jnp.float32))(
            x, weight, data["norm"], data["residual"]
        )
    return got


def _variants(spec: dict[str, Any], rows: int) -> dict[Any, _Product]:
    """XLA's product, and ours with each of the tile sizes that fit the shape."""
    variants: dict[Any, _Product] = {"xla": _product(spec, reference)}
    for blocks in ROW_VARIANTS if rows == 1 else TILE_VARIANTS:
        fits = isinstance(blocks, RowBlocks) or (
            spec["depth"] % (blocks.splits * blocks.columns) == 0
            and not (spec.get("swiglu") and blocks.splits > 1)
        )
        if fits:
            variants[blocks] = _product(spec, gpu, blocks=blocks)
    return variants


def _first_carry(spec: dict[str, Any], data: dict[str, Any]) -> Array:
    """What the first product of a turn takes: the residual, or x as wide as the result."""
    if spec.get("residual"):
        return data["residual"]
    return jnp.pad(data["x"], ((0, 0), (0, max(0, spec["outputs"] - spec["depth"]))))


def measure(rows: int, names: tuple[str, ...] = tuple(PRODUCTS)) -> list[dict[str, Any]]:
    """Times every variant of every product; one record each, XLA included."""
    return [record for name in names for record in _measure(name, rows)]


def _measure(name: str, rows: int) -> list[dict[str, Any]]:
    """One record a variant of one product: its times and error, or why there are none."""
    spec = PRODUCTS[name]
    data = _operands(spec, rows)
    nbytes = data["weights"][0].nbytes
    repeats = max(len(data["weights"]), int(6e-4 * READ_BANDWIDTH / nbytes))
    variants = _variants(spec, rows)
    arguments = (_first_carry(spec, data), data["x"], data["norm"], data["weights"])
    want = _precise(spec, data)
    compiled = compile_all(
        {
            key: (_body(compute, spec, repeats, rows == 1 and key != "xla"), arguments)
            for key, compute in variants.items()
        }
    )
    records = []
    for key, program in compiled.items():
        record: dict[str, Any] = {"product": name, "rows": rows, "variant": str(key)}
        try:
            if isinstance(program, Exception):
                raise program
            seconds = seconds_per_turn(program, arguments) / repeats
            record |= {
                "microseconds": seconds * 1e6,
                "floor_microseconds": nbytes / READ_BANDWIDTH * 1e6,
                "of_bandwidth": nbytes / READ_BANDWIDTH / seconds,
                "relative_error": _relative_error(variants[key], data, want),
            }
        except Exception as error:
            record["error"] = f"{type(error).__name__}: {str(error)[:300]}"
        records.append(record)
    return records


def table(records: list[dict[str, Any]], keep: int = 4) -> str:
    """The best variants of each product and XLA's time, one line each."""
    lines = []
    for name in dict.fromkeys((r["product"], r["rows"]) for r in records):
        mine = [r for r in records if (r["product"], r["rows"]) == name]
        timed = sorted((r for r in mine if "microseconds" in r), key=lambda r: r["microseconds"])
        shown = timed[:keep] + [r for r in timed[keep:] if r["variant"] == "xla"]
        for r in shown:
            lines.append(
                f"{name[0]:8} M={name[1]:<3} {r['microseconds']:7.1f} us "
                f"floor {r['floor_microseconds']:6.1f} ({100 * r['of_bandwidth']:3.0f}%) "
                f"err {r['relative_error']:.1e} {r['variant']}"
            )
        lines += [f"{name[0]:8} FAILED {r['variant']}: {r['error']}" for r in mine if "error" in r]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Prints the table for some numbers of rows; 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="*", default=[1, 8])
    options = parser.parse_args(arguments)
    if jax.default_backend() != "gpu":
        print(f"the kernels run on a GPU; this is {jax.default_backend()}", file=sys.stderr)
        return 2
    for rows in options.rows:
        print(table(measure(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
