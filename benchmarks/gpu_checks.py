"""Compiled searches and generations on this machine's GPU, each called several times.

python -m dendrite_jax.benchmarks.gpu_checks --out benchmarks/results/gpu_checks_h100.json

Every function is compiled with the project's options and with the same options without command
buffers, and called five times on other prompts and keys, the state donated from call to call. What
comes out must be equal, element by element, and so must the states that are left. The log-
probabilities of the paths found are held to plain XLA, which runs prompt and path as one text.
`--capture WHILE` adds to what command buffers hold, to see what the checks are worth.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from dendrite_jax import cache as kv
from dendrite_jax import engine
from dendrite_jax.benchmarks import harness
from dendrite_jax.benchmarks.checks.cases import (
    CALLS,
    PROMPT,
    SHAPE,
    VOCAB_SIZE,
    Case,
    all_cases,
    token_table,
)
from dendrite_jax.benchmarks.checks.twin import Path as TokenPath
from dendrite_jax.benchmarks.checks.twin import worst_difference
from dendrite_jax.benchmarks.harness.shapes import random_model
from dendrite_jax.benchmarks.harness.timing import PARALLEL
from dendrite_jax.engine import NO_TOKEN, State
from dendrite_jax.grammar import CompiledGrammar
from dendrite_jax.models import Decoder
from dendrite_jax.serving.compilation import LOOP_OPTIONS

BOUND = 0.05
"""Most that the mean log-probability of a path's tokens may differ from plain XLA's, in nats: the
logits of bfloat16 differ by up to 0.04 between numbers of rows, and between prefill and decode."""


class Called(NamedTuple):
    """What the calls of one compiled function gave, on the host."""

    found: list[Any]
    state: Any  # after the last call: tables, lengths and counts
    error: str | None


def options(extra: Sequence[str] = (), *, capture: bool = True) -> dict[str, str | int]:
    """The project's compiler options, with more in command buffers or without any.

    Nothing is tuned by timing, or two compilations could multiply by different algorithms.
    """
    kinds = ",".join((str(LOOP_OPTIONS["xla_gpu_enable_command_buffer"]), *extra))
    captured = {"xla_gpu_enable_command_buffer": kinds if capture else ""}
    return LOOP_OPTIONS | captured | {"xla_gpu_autotune_level": 0}


def prompts(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Random prompts of all calls and problems: i32[states, n, PROMPT], and their lengths."""
    states, n = (2 if case.mapped else 1), CALLS * case.problems
    rng = np.random.default_rng(len(case.name))
    tokens = rng.integers(0, VOCAB_SIZE, (states, n, PROMPT)).astype(np.int32)
    return tokens, (PROMPT - np.arange(states * n).reshape(states, n) % 8).astype(np.int32)


def opened(
    case: Case, table: CompiledGrammar, model: Decoder, tokens: Array, count: Array
) -> tuple[State, Array]:
    """A state that holds the prompts i32[n, PROMPT], and their branches."""
    state = engine.init(model, case.cache_config)
    if case.num_blocks is not None:
        state = _leave_last_blocks(case, state)
    state, roots = engine.open_branches(state, jax.random.split(jax.random.key(0), len(tokens)))
    state, _ = engine.prefill(model, state, roots, tokens, count)
    if case.constrained:
        state = engine.constrain(state, roots, table)
    return state, roots


def _leave_last_blocks(case: Case, state: State) -> State:
    """Takes all blocks of a large pool but the last ones, which a small pool would have."""
    needed = replace(case, num_blocks=None).cache_config.num_blocks
    pool = state.cache.pool
    taken = jnp.arange(pool.ref_count.shape[0]) < pool.ref_count.shape[0] - needed
    pool = pool.replace(ref_count=jnp.where(taken, 1, pool.ref_count))
    return state.replace(cache=state.cache.replace(pool=pool))


class Compiled(NamedTuple):
    """The functions of a case."""

    opened: Any
    captured: Any
    plain: Any


def compile_case(
    case: Case, model: Decoder, table: CompiledGrammar, extra: Sequence[str]
) -> Compiled:
    """Compiles the case twice, and what makes its state."""
    tokens, count = prompts(case)
    make = partial(opened, case, table)
    run = case.program
    if case.mapped:
        make = jax.vmap(make, (None, 0, 0))
        run = jax.vmap(run, (None, None, 0, 0, 0))
    else:
        tokens, count = tokens[0], count[0]
    shapes = jax.eval_shape(make, model, tokens, count)
    roots = jax.eval_shape(partial(_roots_of, case, call=0), shapes[1])
    keys = jax.eval_shape(partial(_keys_of, case, 0))
    compiled = [
        jax.jit(run, donate_argnums=2, compiler_options=options(extra, capture=capture))
        .lower(model, case.pieces, shapes[0], roots, keys)
        .compile()
        for capture in (True, False)
    ]
    return Compiled(jax.jit(make).lower(model, tokens, count).compile(), *compiled)


def _roots_of(case: Case, roots: Array, call: int) -> Array:
    """The roots of one call: i32[problems], or one row a mapped state."""
    return roots[..., call * case.problems : (call + 1) * case.problems]


def _keys_of(case: Case, call: int) -> Array:
    """The key of one call, or one a mapped state."""
    key = jax.random.key(call)
    return jax.random.split(key, 2) if case.mapped else key


def call_often(case: Case, compiled: Compiled, function: Any, model: Decoder) -> Called:
    """Calls a compiled function CALLS times on a new state, on other roots and keys each time."""
    tokens, count = prompts(case)
    if not case.mapped:
        tokens, count = tokens[0], count[0]
    state, roots = compiled.opened(model, tokens, count)
    found = []
    for call in range(CALLS):
        given = _roots_of(case, roots, call), _keys_of(case, call)
        state, out = function(model, case.pieces, state, *given)
        found.append(jax.device_get(out))
    cache = state.cache
    states = [cache]
    if case.mapped:
        states = [jax.tree.map(lambda leaf, i=i: leaf[i], cache) for i in range(2)]
    errors = [kv.find_error(state) for state in states]
    kept = (cache.table, cache.length, cache.alive, cache.pool.ref_count, cache.pool.tokens)
    return Called(found, jax.device_get(kept), next((str(e) for e in errors if e), None))


def check(case: Case, compiled: Compiled, model: Decoder) -> tuple[dict[str, Any], list[TokenPath]]:
    """The row of a case, and the paths to hold to the twin."""
    captured = call_often(case, compiled, compiled.captured, model)
    plain = call_often(case, compiled, compiled.plain, model)
    equal = [_equal(*pair) for pair in zip(captured.found, plain.found, strict=True)]
    row = {
        "case": case.name,
        "lanes": case.lanes,
        "wrong_calls": equal.count(False),
        "states_equal": _equal(captured.state, plain.state),
        "token_steps": _steps(captured),
        "token_steps_without_buffers": _steps(plain),
        "empty_calls": sum(bool(np.any(found.empty)) for found in captured.found),
        "error": captured.error,
    }
    return row, list(_paths(case, captured))


def _steps(called: Called) -> str:
    """The token steps of each call by the ledger, of mapped states joined by a plus."""
    return " ".join("+".join(map(str, np.ravel(found.steps))) for found in called.found)


def _equal(a: Any, b: Any) -> bool:
    return all(
        np.array_equal(x, y, equal_nan=True)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def _paths(case: Case, called: Called) -> Any:
    """Prompt, tokens and log-probability of the paths of every call."""
    tokens, count = prompts(case)
    for call, found in enumerate(called.found):
        mapped = found if case.mapped else jax.tree.map(lambda leaf: leaf[None], found)
        for problem_set in range(len(mapped.tokens)):
            for row, logprob, root in zip(
                mapped.tokens[problem_set],
                mapped.raw_logprob[problem_set],
                mapped.root[problem_set],
                strict=True,
            ):
                path = row[row != NO_TOKEN]
                if path.size:
                    which = call * case.problems + int(root)
                    prompt = tokens[problem_set, which, : count[problem_set, which]]
                    yield TokenPath(prompt, path, float(logprob))


def run(extra: Sequence[str] = (), only: str = "") -> dict[str, Any]:
    """Checks every case; "failed" has what did not hold, by name."""
    model = random_model(SHAPE, jnp.bfloat16)
    table = token_table()
    cases = [case for case in all_cases() if only in case.name]
    rows, failed = [], []
    with ThreadPoolExecutor(PARALLEL) as pool:
        jobs = [pool.submit(compile_case, case, model, table, extra) for case in cases]
        for case, job in zip(cases, jobs, strict=True):
            try:
                row, paths = check(case, job.result(), model)
            except jax.errors.JaxRuntimeError as error:
                # A captured loop that went astray may have written anywhere: nothing runs after it.
                failed.append(f"{case.name}: {str(error).splitlines()[0]}; the rest was not run")
                break
            row |= {"paths": len(paths), "worst_difference": worst_difference(model, paths)}
            reasons = reasons_of(row)
            failed += [f"{case.name}: {reason}" for reason in reasons]
            rows.append(row)
            print(case.name, "; ".join(reasons) or "ok", row["token_steps"], flush=True)
    return {
        "benchmark": "gpu_checks",
        "environment": harness.environment(),
        "options": options(extra),
        "calls": CALLS,
        "bound": BOUND,
        "rows": rows,
        "wrong_calls": sum(row["wrong_calls"] for row in rows),
        "all_calls": CALLS * len(rows),
        "failed": failed,
    }


def reasons_of(row: dict[str, Any]) -> list[str]:
    """What does not hold in a row."""
    found = []
    if row["wrong_calls"]:
        found.append(f"{row['wrong_calls']} of {CALLS} calls differ without command buffers")
    if not row["states_equal"]:
        found.append("the states left differ")
    if row["empty_calls"]:
        found.append(f"{row['empty_calls']} calls found nothing")
    if row["error"]:
        found.append(row["error"])
    if not row["paths"] or not row["worst_difference"] <= BOUND:
        found.append(f"log-probabilities differ by {row['worst_difference']} a token")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Prints a line a case; 1 if a check failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--capture", nargs="*", default=[], help="more for command buffers to hold")
    parser.add_argument("--only", default="", help="cases whose names contain this")
    parser.add_argument("--out", type=Path, default=None, help="write the JSON here")
    given = parser.parse_args(arguments)
    if jax.default_backend() != "gpu":
        print(f"these checks are of a GPU; this is {jax.default_backend()}", file=sys.stderr)
        return 2
    result = run(given.capture, given.only)
    if given.out is not None:
        harness.save(result, given.out)
    print(f"{result['wrong_calls']} of {result['all_calls']} calls wrong")
    print("\n".join(result["failed"]) or "all checks passed")
    return 1 if result["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
